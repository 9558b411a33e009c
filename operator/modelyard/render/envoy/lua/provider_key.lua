-- Runs after the provider's key was added: without one nothing is sent. Envoy does not take the refusal of a filter for
-- a failure of the target, so no other is tried.

local BODY = '{"error":{"message":"The key of the provider is not there yet. Try again later.",'
  .. '"type":"server_error","param":null,"code":"model_unavailable"}}'

function envoy_on_request(handle)
  if handle:headers():get('authorization') then return end
  handle:respond({ [':status'] = '503', ['content-type'] = 'application/json' }, BODY)
end
