-- Health of a PostgresCluster for Argo CD: docs/gitops.md says where this goes.
local health = {}
local status = obj.status or {}
local conditions = {}
for _, condition in ipairs(status.conditions or {}) do
  conditions[condition.type] = condition
end

local function is(type, value)
  return conditions[type] ~= nil and conditions[type].status == value
end

local function says(state, condition)
  health.status = state
  health.message = condition.reason .. ": " .. condition.message
  return health
end

if obj.metadata.deletionTimestamp ~= nil then
  return {status = "Progressing", message = "The cluster is being deleted"}
end
if conditions["Ready"] == nil or status.observedGeneration ~= obj.metadata.generation then
  return {status = "Progressing", message = "Waiting until the operator has seen the spec"}
end
-- What waits for a person.
if is("Stalled", "True") then
  return says("Degraded", conditions["Stalled"])
end
if is("Reconciled", "False") then
  return says("Degraded", conditions["Reconciled"])
end
if is("ConfigurationApplied", "False") and conditions["ConfigurationApplied"].reason == "InvalidParameters" then
  return says("Degraded", conditions["ConfigurationApplied"])
end
if is("DeclaredStateApplied", "False") and conditions["DeclaredStateApplied"].reason ~= "Applying" then
  return says("Degraded", conditions["DeclaredStateApplied"])
end
-- What the spec says shall rest.
if is("Hibernated", "True") then
  return says("Suspended", conditions["Hibernated"])
end
if is("Reconciling", "True") or is("Progressing", "True") then
  local under_way = is("Reconciling", "True") and conditions["Reconciling"] or conditions["Progressing"]
  -- In maintenance mode what is due waits, on purpose.
  if under_way.reason == "Paused" then
    return says("Suspended", under_way)
  end
  return says("Progressing", under_way)
end
if is("Ready", "True") then
  return says("Healthy", conditions["Ready"])
end
return says("Progressing", conditions["Ready"])
