-- A request to a provider, and its answer: nothing passes that is not named here.

-- What the provider is told beside the body. The client's address, cookies, keys and organisation are not its business,
-- and a compressed answer would hide the token usage. The request id is the gateway's own.
local REQUEST_HEADERS = {
  [':authority'] = true, [':method'] = true, [':path'] = true, [':scheme'] = true,
  ['accept'] = true, ['content-length'] = true, ['content-type'] = true, ['x-request-id'] = true,
}

-- What the client is told beside the body. Cookies, the account and where else the provider can be reached
-- (Alt-Svc) are not for the client of a gateway.
local RESPONSE_HEADERS = {
  [':status'] = true, ['cache-control'] = true, ['content-encoding'] = true, ['content-length'] = true,
  ['content-type'] = true, ['date'] = true, ['retry-after'] = true, ['transfer-encoding'] = true,
}

local function keep(headers, allowed)
  local surplus = {}
  for name in pairs(headers) do
    if not allowed[name] then surplus[#surplus + 1] = name end
  end
  for _, name in ipairs(surplus) do headers:remove(name) end
end

function envoy_on_request(handle)
  local headers = handle:headers()
  local served = take(headers, 'x-modelyard-served-model')
  local scanned = take(headers, 'x-modelyard-scanned')
  headers:replace(':authority', take(headers, 'x-modelyard-authority'))
  headers:replace(':path', string.match(headers:get(':path'), '^[^?]*'))
  local asks = take(headers, 'x-modelyard-usage')
  local endpoint = write_path(headers, take(headers, 'x-modelyard-path') or '')
  keep(headers, REQUEST_HEADERS)
  headers:replace('user-agent', 'modelyard')
  write_model(handle, served, endpoint, asks, scanned)
end

function envoy_on_response(handle)
  keep(handle:headers(), RESPONSE_HEADERS)
end
