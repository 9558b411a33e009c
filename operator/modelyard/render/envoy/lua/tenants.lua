-- Who calls. The metadata of the virtual host has the digests of the API keys, never the keys.

-- That metadata as a table. Whoever looks into the metadata itself gets a copy of all of it, for each request, so it is
-- read when its version changes. The route that requests have before their model is known tells the version.
local known, known_version = {}, nil

local function refresh_known(handle)
  local version = handle:route():metadata():get('version')
  if version and version == known_version then return end
  local read = {}
  for key, value in pairs(handle:virtualHost():metadata()) do read[key] = value end
  known, known_version = read, version
end

local TENANT_HEADER = 'x-modelyard-tenant'
local GROUPS_HEADER = 'x-modelyard-groups'

-- Bytes. No longer key is given out, and none longer is hashed.
local MAX_KEY = 256

local function find_key(key)
  if not key or #key > MAX_KEY then return nil end
  return known['key:' .. sha256(key)]
end

-- Says in headers who calls; false if nobody who may. An `Authorization` may be there for something in between, so a key
-- in either header will do.
local function authenticate(handle)
  local headers, found = handle:headers(), nil
  if known.keys then
    local bearer = string.match(headers:get('authorization') or '', '^[Bb][Ee][Aa][Rr][Ee][Rr] +(%S+)$')
    found = find_key(bearer) or find_key(headers:get('x-api-key'))
  end
  local tenant, groups = string.match(found or '', '^(%S+) (.*)$')
  if tenant then
    headers:replace(TENANT_HEADER, tenant)
  else
    groups = known.anonymous
    if not groups then return false end
  end
  if groups ~= '' then headers:replace(GROUPS_HEADER, groups) end
  return true
end
