-- Writes the engine's own model name into the request body; every other byte stays as the client sent it.
-- Runs once per attempt in the cluster's chain, so that each target gets its own name.

local SERVED_MODEL_HEADER = 'x-modelyard-served-model'

function envoy_on_request(handle)
  -- Escaped for JSON already.
  local served = handle:headers():get(SERVED_MODEL_HEADER)
  handle:headers():remove(SERVED_MODEL_HEADER)
  local body = handle:body()
  if not served or not body then return end
  local text = body:getBytes(0, body:length())
  local first, last = find_model(text)
  if not first or sub(text, first, last) == served then return end
  local rewritten = sub(text, 1, first - 1) .. served .. sub(text, last + 1)
  body:setBytes(rewritten)
  -- A handle to the headers does not survive the wait for the body.
  local headers = handle:headers()
  -- The body is complete here, so it can be announced even if the client sent it in chunks.
  headers:remove('transfer-encoding')
  headers:replace('content-length', tostring(#rewritten))
end
