-- Decides what a request asks for and says so in one header, which the virtual host matches on.

-- Paths that engines answer by the body's model. Everything else that an engine serves (loading adapters, its
-- metrics, its documentation) must not be reachable from outside.
local INFERENCE = {
  ['/v1/chat/completions'] = true,
  ['/v1/completions'] = true,
  ['/v1/embeddings'] = true,
  ['/v1/messages'] = true,
  ['/v1/rerank'] = true,
  ['/v1/responses'] = true,
  ['/v1/score'] = true,
}

local ROUTE_HEADER = 'x-modelyard-route'
local METADATA = 'modelyard'

-- Bytes. Longer names cannot exist, and three header bytes per byte must fit Envoy's 60 KiB of headers.
local MAX_MODEL = 1024
-- Bytes of an unknown name that an error message repeats.
local MAX_SHOWN = 128

-- JSON of an error as OpenAI's API writes it; the messages are constants without quotes or escapes to care for.
local function refuse(handle, status, code, message)
  local text = string.gsub(message, '"', '\\"')
  handle:respond(
    { [':status'] = tostring(status), ['content-type'] = 'application/json' },
    format('{"error":{"message":"%s","type":"invalid_request_error","param":null,"code":"%s"}}', text, code)
  )
end

local function percent_encode(text)
  return (string.gsub(text, '[^%w%-%._~/:@]', function(c) return format('%%%02X', byte(c)) end))
end

local function percent_decode(text)
  return (string.gsub(text, '%%(%x%x)', function(digits) return char(tonumber(digits, 16)) end))
end

-- At most MAX_SHOWN bytes of the name, cut between characters.
local function shortened(model)
  if #model <= MAX_SHOWN then return model end
  local last = MAX_SHOWN
  while last > 0 and byte(model, last + 1) >= 0x80 and byte(model, last + 1) < 0xC0 do last = last - 1 end
  return sub(model, 1, last) .. '...'
end

local function choose(handle, kind, model)
  handle:streamInfo():dynamicMetadata():set(METADATA, 'model', shortened(model))
  if #model <= MAX_MODEL then
    handle:headers():replace(ROUTE_HEADER, kind .. ':' .. percent_encode(model))
  end
  handle:clearRouteCache()
end

local function scan_body(handle)
  local media_type = handle:headers():get('content-type') or ''
  if not find(string.lower(media_type), '^%s*application/json%s*$')
    and not find(string.lower(media_type), '^%s*application/json%s*;') then
    return refuse(handle, 415, 'unsupported_media_type', 'The content type must be application/json.')
  end
  local body = handle:body()
  if not body then return refuse(handle, 400, 'invalid_json', BROKEN) end
  local text = body:getBytes(0, body:length())
  local first, last = find_model(text)
  if not first then return refuse(handle, 400, 'invalid_request', last) end
  local model = unescape(sub(text, first, last))
  if not model or find(sub(text, first, last), '[%z\1-\31]') or not is_utf8(model) then
    return refuse(handle, 400, 'invalid_json', BROKEN)
  end
  if model == '' then return refuse(handle, 400, 'invalid_request', NOT_STRING) end
  choose(handle, 'model', model)
end

function envoy_on_request(handle)
  local headers = handle:headers()
  local method = headers:get(':method')
  local path = string.match(headers:get(':path') or '', '^[^?#]*')
  if INFERENCE[path] then
    if method == 'POST' then return scan_body(handle) end
    return refuse(handle, 405, 'method_not_allowed', 'This path answers POST only.')
  end
  local id = string.match(path, '^/v1/models/(.+)$')
  if path ~= '/v1/models' and not id then
    return refuse(handle, 404, 'not_found', 'There is no such path.')
  end
  if method ~= 'GET' then
    return refuse(handle, 405, 'method_not_allowed', 'This path answers GET only.')
  end
  if id then
    local model = percent_decode(id)
    if not is_utf8(model) then return refuse(handle, 400, 'invalid_request', 'The path is not UTF-8.') end
    return choose(handle, 'info', model)
  end
  headers:replace(ROUTE_HEADER, 'models')
  handle:clearRouteCache()
end
