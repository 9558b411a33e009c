-- Decides what a request asks for and says so in one header, which the virtual host matches on. On the way back it
-- takes the usage out of streams whose client did not ask for it.

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

-- Of these, the paths whose streams end with the usage in an event without choices, if that is asked for.
local ENDS_WITH_USAGE = {
  ['/v1/chat/completions'] = true,
  ['/v1/completions'] = true,
}

local SERVED = 'Served are POST /v1/chat/completions, /v1/completions, /v1/embeddings, /v1/messages, /v1/rerank, '
  .. '/v1/responses and /v1/score, GET /v1/models and GET /v1/models/{model}.'
local NO_PATH = 'There is no such path. ' .. SERVED
local NO_BASE = 'There is no such path: the base URL must end in /v1.'
local NO_STORE = 'Nothing is stored between requests, so there is nothing to read or continue: keep what you receive '
  .. 'and send the whole conversation to /v1/responses or /v1/chat/completions.'
local NO_FILES = 'Files, batches and training are not served: send each request by itself. ' .. SERVED

-- Why a part of OpenAI's API is not served, and what to use instead, by the word after /v1/.
local INSTEAD = {
  assistants = NO_STORE,
  audio = 'Audio is not served: requests are routed by the field "model" of a JSON body, which these do not have, and '
    .. 'engines answer with text. A model that hears takes audio as an "input_audio" part of a message in '
    .. '/v1/chat/completions.',
  batches = NO_FILES,
  conversations = NO_STORE,
  files = NO_FILES,
  fine_tuning = NO_FILES,
  images = 'Images are not generated: engines answer with text. A model that sees takes images as "image_url" parts '
    .. 'of a message in /v1/chat/completions.',
  moderations = 'Moderation is not served: ask a model that classifies content in /v1/chat/completions.',
  realtime = 'Realtime sessions are not served: use /v1/chat/completions with "stream": true.',
  responses = NO_STORE,
  threads = NO_STORE,
  uploads = NO_FILES,
  vector_stores = NO_FILES,
  videos = 'Videos are not generated: engines answer with text. ' .. SERVED,
}

-- Of these, the paths whose engines keep what they computed of a conversation and need not do it again.
local CONTINUES = {
  ['/v1/chat/completions'] = true,
  ['/v1/completions'] = true,
  ['/v1/messages'] = true,
  ['/v1/responses'] = true,
}

local ROUTE_HEADER = 'x-modelyard-route'
local STREAM_HEADER = 'x-modelyard-stream'
-- Where the model stands in the body, where which text asks for the usage of a stream that does not ask for it itself
-- (0: nothing is to be asked), and how the model is written, for the first attempt.
local SCANNED_HEADER = 'x-modelyard-scanned'
local SESSION_HEADER = 'x-session-id'
local METADATA = 'modelyard'

-- Bytes. Longer names cannot exist, and three header bytes per byte must fit Envoy's 60 KiB of headers.
local MAX_MODEL = 1024
-- Bytes by which prompts are told apart: 256 tokens of 4 bytes, what OpenAI chooses machines by
-- (https://platform.openai.com/docs/guides/prompt-caching).
local OPENING = 1024
-- Bytes of an unknown name that an error message repeats.
local MAX_SHOWN = 128

-- Bytes of an unfinished event that are kept back until its rest comes. An event with the usage alone has about 300.
local MAX_EVENT = 65536

-- Bytes of English text per token, the rule of thumb of OpenAI (https://help.openai.com/en/articles/4936856). A body
-- has the names of its fields too, as chat templates add words of their own.
local BYTES_PER_TOKEN = 4

-- Events of a stream after which their number is noted again: noting each would cost as much as passing it on.
local NOTED_EVENTS = 8

-- Pairs of a tenant and a route that have counters of their own, for each worker. What comes later is counted together
-- for all tenants, under a name that no object can have.
local MAX_PAIRS = 10000
local OTHER_TENANTS = '_other'
local pairs_counted, pair_count = {}, 0

-- JSON of an error as OpenAI's API writes it; the messages are constants without quotes or escapes to care for.
local function refuse(handle, status, code, message, challenge)
  local text = string.gsub(message, '"', '\\"')
  handle:respond(
    { [':status'] = tostring(status), ['content-type'] = 'application/json', ['www-authenticate'] = challenge },
    format('{"error":{"message":"%s","type":"invalid_request_error","param":null,"code":"%s"}}', text, code)
  )
end

-- The same, once the body is there: a connection that is closed while its client still sends is reset, and the answer
-- is lost.
local function refuse_read(handle, status, code, message)
  handle:body()
  refuse(handle, status, code, message)
end

local NO_KEY = 'No API key was sent. Set the header "Authorization: Bearer KEY" or "x-api-key: KEY".'
local WRONG_KEY = 'The API key is not valid.'

-- Nobody without a key makes the gateway read a body.
local function refuse_caller(handle)
  local headers = handle:headers()
  local sent = headers:get('authorization') or headers:get('x-api-key')
  refuse(handle, 401, 'invalid_api_key', sent and WRONG_KEY or NO_KEY, 'Bearer')
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

-- The tenant's name as counters have it: each pair costs memory until the gateway ends, so there is a bound.
local function counted(tenant, route)
  local pair = tenant .. ' ' .. route
  if pairs_counted[pair] then return tenant end
  if pair_count >= MAX_PAIRS then return OTHER_TENANTS end
  pairs_counted[pair], pair_count = true, pair_count + 1
  return tenant
end

local function note(handle, key, value)
  handle:streamInfo():dynamicMetadata():set(METADATA, key, value)
end

-- Notes who asks, for what is counted at the end of a request: attempts change the headers.
-- All requests of a tenant that have none are one pair: model names that nobody has are the client's own text.
local function note_tenant(handle, route)
  local tenant = handle:headers():get(TENANT_HEADER)
  if tenant then note(handle, 'tenant', counted(tenant, route:get('route') or '')) end
end

-- Marks a request that is counted against limits: the metadata of the virtual host names the tenants that have some.
local function mark_limited(handle)
  local tenant = handle:headers():get(TENANT_HEADER)
  if tenant and known['limited:' .. tenant] then note(handle, 'limited', tenant) end
end

local function choose(handle, kind, model)
  note(handle, 'model', shortened(model))
  if #model <= MAX_MODEL then
    handle:headers():replace(ROUTE_HEADER, kind .. ':' .. percent_encode(model))
  end
  handle:clearRouteCache()
end

-- What requests that should go to the same pod have in common, or nil.
--
-- It must not change while a conversation grows, so nothing counts that comes after the first message of the user. It
-- must differ between conversations, so the start of that message counts also where a long system prompt, which all of
-- them may share, comes before it.
local function affinity(body, found, session)
  if found.key_first and found.key_last >= found.key_first then
    return 'key:' .. part(body, found.key_first, math.min(found.key_last, found.key_first + OPENING - 1))
  end
  if session and session ~= '' then return 'key:' .. sub(session, 1, OPENING) end
  if not found.prompt_first then return nil end
  local enough = found.prompt_first + OPENING - 1
  local opening = part(body, found.prompt_first, math.min(found.user_last or found.prompt_last, enough))
  if found.user_last and found.user_last > enough then
    opening = opening .. part(body, found.user_first, math.min(found.user_last, found.user_first + OPENING - 1))
  end
  return 'prompt:' .. opening
end

local function scan_body(handle, path)
  local media_type = handle:headers():get('content-type') or ''
  if not find(string.lower(media_type), '^%s*application/json%s*$')
    and not find(string.lower(media_type), '^%s*application/json%s*;') then
    return refuse_read(handle, 415, 'unsupported_media_type', 'The content type must be application/json.')
  end
  local body = handle:body()
  if not body then return refuse(handle, 400, 'invalid_json', BROKEN) end
  local found, problem = scan(body)
  if not found then return refuse(handle, 400, 'invalid_request', problem) end
  local written = part(body, found.first, found.last)
  local model = unescape(written)
  if not model or find(written, '[%z\1-\31]') or not is_utf8(model) then
    return refuse(handle, 400, 'invalid_json', BROKEN)
  end
  if model == '' then return refuse(handle, 400, 'invalid_request', NOT_STRING) end
  local headers, size = handle:headers(), body:length()
  if found.streamed then headers:replace(STREAM_HEADER, 'true') end
  if #model <= MAX_MODEL then
    local edit = found.streamed and not found.wants_usage and found.edit or 0
    local places = { found.first, found.last, edit, found.edit_first, found.edit_last }
    headers:replace(SCANNED_HEADER, table.concat(places, ' ') .. ' ' .. written)
  end
  -- The body is complete here, so it can be announced even if the client sent it in chunks.
  headers:remove('transfer-encoding')
  headers:replace('content-length', tostring(size))
  if ENDS_WITH_USAGE[path] and not found.wants_usage then note(handle, 'hides_usage', true) end
  -- What is charged if the answer ends before it tells its usage.
  note(handle, 'estimated_prompt_tokens', math.ceil((size - found.inline) / BYTES_PER_TOKEN))
  mark_limited(handle)
  choose(handle, 'model', model)
  local route = handle:metadata()
  note_tenant(handle, route)
  if CONTINUES[path] and route:get('affinity') then
    local together = affinity(body, found, headers:get(SESSION_HEADER))
    if together then note(handle, 'affinity', together) end
  end
end

-- Why there is no such path, as far as it can be guessed.
local function missing(path)
  if INFERENCE['/v1' .. path] or find(path, '^/models') then return NO_BASE end
  if find(path, '^/v1/v1/') then return NO_BASE .. ' It has more than one.' end
  return INSTEAD[string.match(path, '^/v1/([%w_]+)') or ''] or NO_PATH
end

function envoy_on_request(handle)
  local headers = handle:headers()
  refresh_known(handle)
  if not authenticate(handle) then return refuse_caller(handle) end
  local method = headers:get(':method')
  local path = string.match(headers:get(':path') or '', '^[^?#]*')
  if INFERENCE[path] then
    if method == 'POST' then return scan_body(handle, path) end
    return refuse_read(handle, 405, 'method_not_allowed', 'This path answers POST only.')
  end
  local id = string.match(path, '^/v1/models/(.+)$')
  if path ~= '/v1/models' and not id then
    return refuse_read(handle, 404, 'not_found', missing(path))
  end
  if method ~= 'GET' then
    return refuse_read(handle, 405, 'method_not_allowed', 'This path answers GET only.')
  end
  if id then
    local model = percent_decode(id)
    if not is_utf8(model) then return refuse(handle, 400, 'invalid_request', 'The path is not UTF-8.') end
    return choose(handle, 'info', model)
  end
  headers:replace(ROUTE_HEADER, 'models')
  handle:clearRouteCache()
end

-- Whether a server-sent event that has a usage carries nothing else. Quotes inside JSON strings are escaped, so the name
-- cannot be part of a text.
local function is_usage(event)
  return find(event, '"choices"%s*:%s*%[%s*%]')
end

-- A server-sent event without the top-level field "usage" of its JSON. A usage has no texts with braces in it.
local function strip_usage(event)
  local depth, position = 0, find(event, '{', 1, true)
  while position do
    local c = byte(event, position)
    if c == 34 then
      local close = string_end(event, position)
      if not close then return event end
      if depth == 1 and sub(event, position, close) == '"usage"' then
        local _, last = find(event, '^%s*:%s*%b{}', close + 1)
        if last then
          local _, comma = find(event, '^%s*,%s*', last + 1)
          if comma then return sub(event, 1, position - 1) .. sub(event, comma + 1) end
          return string.match(sub(event, 1, position - 1), '^(.-),?%s*$') .. sub(event, last + 1)
        end
      end
      position = close
    elseif c == 123 or c == 91 then depth = depth + 1
    else depth = depth - 1 end
    position = find(event, '["{}%[%]]', position + 1)
  end
  return event
end

-- The whole events of a text without the usage, and what is left of an event that is not complete yet.
local function without_usage(text)
  local events, position = {}, 1
  while true do
    local _, last = find(text, '\n\r?\n', position)
    if not last then break end
    local event = sub(text, position, last)
    if not find(event, '"usage"%s*:%s*{') then events[#events + 1] = event
    elseif not is_usage(event) then events[#events + 1] = strip_usage(event) end
    position = last + 1
  end
  local rest = sub(text, position)
  if #rest > MAX_EVENT then events[#events + 1], rest = rest, '' end
  return table.concat(events), rest
end

-- Number of events that begin in a part of a stream. Engines send one for each token.
local function count_events(text)
  local count, position = 0, find(text, 'data:', 1, true)
  while position do
    count, position = count + 1, find(text, 'data:', position + 5, true)
  end
  return count
end

-- Notes how much of a stream was sent, for the case that it ends before it tells its usage. Targets are asked to send the
-- usage always, because it is counted. Clients that did not ask for it may not expect an event without choices, so it ends
-- here: the filters that count have seen it before. Some targets tell it in further events, unasked; there it is taken out.
function envoy_on_response(handle)
  local headers = handle:headers()
  if not find(string.lower(headers:get('content-type') or ''), '^%s*text/event%-stream')
    or headers:get('content-encoding') then return end
  local metadata = handle:streamInfo():dynamicMetadata():get(METADATA)
  if not metadata or not metadata.estimated_prompt_tokens then return end
  local hides = metadata.hides_usage
  if hides then headers:remove('content-length') end
  local rest, events, noted = '', 0, 0
  for chunk in handle:bodyChunks() do
    local received = chunk:getBytes(0, chunk:length())
    events = events + count_events(received)
    if events > noted and (events < NOTED_EVENTS or events - noted >= NOTED_EVENTS) then
      note(handle, 'estimated_completion_tokens', events)
      noted = events
    end
    -- Nearly every chunk is whole events with tokens.
    if hides and (rest ~= '' or sub(received, -2) ~= '\n\n' or find(received, '"usage"', 1, true)) then
      local kept
      kept, rest = without_usage(rest .. received)
      if kept ~= received then chunk:setBytes(kept) end
    end
  end
end
