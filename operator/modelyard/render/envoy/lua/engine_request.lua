-- A request to an engine of ours.

function envoy_on_request(handle)
  local headers = handle:headers()
  local served = take(headers, 'x-modelyard-served-model')
  local asks = take(headers, 'x-modelyard-usage')
  write_model(handle, served, write_path(headers, '/v1'), asks)
end
