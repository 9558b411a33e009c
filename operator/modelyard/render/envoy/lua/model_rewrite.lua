-- Parts of the scripts that run once per attempt in a cluster's chain, so that each target gets its own model name and
-- path. All attempts of a request share one set of headers: what an attempt changed, the next one finds changed. The
-- body is the client's own every time, or what an endpoint picker has made of it.

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

-- Adds the bytes of a body from one position to another to a list of texts.
local function copy(body, first, last, texts)
  for start = first, last, WINDOW do
    texts[#texts + 1] = part(body, start, math.min(last, start + WINDOW - 1))
  end
end

-- The endpoints whose streams tell their usage where it is asked for.
local ENDS_WITH_USAGE = { ['/chat/completions'] = true, ['/completions'] = true }

local NO_REQUEST = '{"error":{"message":"The endpoint picker of the model has written a body that is no request.",'
  .. '"type":"server_error","param":null,"code":"invalid_picker_answer"}}'

-- Writes the target's own model name, escaped for JSON already, and asks for the usage of a stream where `asks` says
-- so and the client does not: what is not told cannot be counted. The request scan keeps the usage from a client that
-- did not ask. Every other byte stays as the client sent it. Where both belong is known from the request scan at the first
-- attempt; later ones look for it again.
local function write_model(handle, served, endpoint, asks, scanned)
  local first, last, edit, edit_first, edit_last, name
  asks = asks and ENDS_WITH_USAGE[endpoint]
  if scanned then
    first, last, edit, edit_first, edit_last, name = string.match(scanned, '^(%d+) (%d+) (%d) (%d+) (%d+) (.*)$')
    asks = asks and edit ~= '0'
    -- The body is not touched, so it need not be held up either.
    if name == served and not asks then return end
  end
  local body = handle:body()
  if not body then return end
  local edits = {}
  if not scanned then
    local found = scan(body)
    -- Only an endpoint picker can have written such a body. The name in it would not be the target's.
    if not found then
      return handle:respond({ [':status'] = '502', ['content-type'] = 'application/json' }, NO_REQUEST)
    end
    first, last, name = found.first, found.last, part(body, found.first, found.last)
    asks = asks and found.streamed and not found.wants_usage and found.edit
    edit, edit_first, edit_last = found.edit, found.edit_first, found.edit_last
  end
  if asks then edits[1] = { tonumber(edit_first), tonumber(edit_last), EDITS[tonumber(edit)] } end
  if served and first and name ~= served then edits[#edits + 1] = { tonumber(first), tonumber(last), served } end
  if #edits > 0 then
    table.sort(edits, function(one, other) return one[1] < other[1] end)
    local texts, copied = {}, 0
    for _, edit in ipairs(edits) do
      copy(body, copied + 1, edit[1] - 1, texts)
      texts[#texts + 1] = edit[3]
      copied = edit[2]
    end
    copy(body, copied + 1, body:length(), texts)
    body:setBytes(table.concat(texts))
  end
  -- A handle to the headers does not survive the wait for the body.
  local headers = handle:headers()
  -- The body is complete here, so it can be announced even if the client sent it in chunks.
  headers:remove('transfer-encoding')
  headers:replace('content-length', tostring(body:length()))
end
