-- A request to an engine of ours.

function envoy_on_request(handle)
  local headers = handle:headers()
  local served = take(headers, 'x-modelyard-served-model')
  local scanned = take(headers, 'x-modelyard-scanned')
  local asks = take(headers, 'x-modelyard-usage')
  -- At the first attempt the path is the client's, which is the engine's.
  local endpoint = (asks or not scanned) and write_path(headers, '/v1')
  write_model(handle, served, endpoint, asks, scanned)
end
