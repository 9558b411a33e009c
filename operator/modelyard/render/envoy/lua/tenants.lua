-- Who calls. The metadata of the virtual host has the digests of the API keys, never the keys.

local TENANT_HEADER = 'x-modelyard-tenant'
local GROUPS_HEADER = 'x-modelyard-groups'

-- Bytes. No longer key is given out, and none longer is hashed.
local MAX_KEY = 256

local function find_key(known, key)
  if not key or #key > MAX_KEY then return nil end
  return known:get('key:' .. sha256(key))
end

-- Says in headers who calls; false if nobody who may. An `Authorization` may be there for something in between, so a key
-- in either header will do.
local function authenticate(handle)
  local headers, known = handle:headers(), handle:virtualHost():metadata()
  local found
  if known:get('keys') then
    local bearer = string.match(headers:get('authorization') or '', '^[Bb][Ee][Aa][Rr][Ee][Rr] +(%S+)$')
    found = find_key(known, bearer) or find_key(known, headers:get('x-api-key'))
  end
  local tenant, groups = string.match(found or '', '^(%S+) (.*)$')
  if tenant then
    headers:replace(TENANT_HEADER, tenant)
  else
    groups = known:get('anonymous')
    if not groups then return false end
  end
  if groups ~= '' then headers:replace(GROUPS_HEADER, groups) end
  return true
end
