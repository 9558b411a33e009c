-- Parts of the scripts that run once per attempt in a cluster's chain, so that each target gets its own model name and
-- path. All attempts of a request share one set of headers: what an attempt changed, the next one finds changed. The
-- body is the client's own every time.

-- What follows the version in the paths of the request scan; the longer of two that end alike comes first.
local ENDPOINTS = {
  '/chat/completions', '/completions', '/embeddings', '/messages', '/rerank', '/responses', '/score',
}

-- The header's value, which is for this script only.
local function take(headers, name)
  local value = headers:get(name)
  headers:remove(name)
  return value
end

-- Puts what the target has in place of the gateway's /v1 before the endpoint, which is returned.
local function write_path(headers, prefix)
  local path, query = string.match(headers:get(':path') or '', '^([^?]*)(.*)$')
  for _, endpoint in ipairs(ENDPOINTS) do
    if sub(path, -#endpoint) == endpoint then
      headers:replace(':path', prefix .. endpoint .. query)
      return endpoint
    end
  end
end

-- The endpoints whose streams tell their usage where it is asked for.
local ENDS_WITH_USAGE = { ['/chat/completions'] = true, ['/completions'] = true }

-- Writes the target's own model name, escaped for JSON already, and asks for the usage of a stream where `asks` says
-- so and the client does not: what is not told cannot be counted. The request scan keeps the usage from a client that
-- did not ask. Every other byte stays as the client sent it.
local function write_model(handle, served, endpoint, asks)
  local body = handle:body()
  if not body then return end
  local text = body:getBytes(0, body:length())
  local first, last, streamed, wants_usage, _, edit_first, edit_last, edit_text = find_model(text)
  local renames = served and first and sub(text, first, last) ~= served
  local adds = asks and ENDS_WITH_USAGE[endpoint] and streamed and not wants_usage and edit_text
  if renames or adds then
    local name = renames and served or first and sub(text, first, last)
    if not adds then
      text = sub(text, 1, first - 1) .. name .. sub(text, last + 1)
    elseif edit_first > last then
      text = sub(text, 1, first - 1) .. name .. sub(text, last + 1, edit_first - 1) .. edit_text
        .. sub(text, edit_last + 1)
    else
      text = sub(text, 1, edit_first - 1) .. edit_text .. sub(text, edit_last + 1, first - 1) .. name
        .. sub(text, last + 1)
    end
    body:setBytes(text)
  end
  -- A handle to the headers does not survive the wait for the body.
  local headers = handle:headers()
  -- The body is complete here, so it can be announced even if the client sent it in chunks.
  headers:remove('transfer-encoding')
  headers:replace('content-length', tostring(#text))
end
