-- A request to an engine of ours.

function envoy_on_request(handle)
  local headers = handle:headers()
  local served = take(headers, 'x-modelyard-served-model')
  write_path(headers, '/v1')
  write_model(handle, served)
end
