{{- /* What the operator may do. Every rule is one that its code uses; tests/chart shows both directions. */ -}}

{{- /* Kinds without a namespace: read only. */ -}}
{{- define "modelyard.rules.cluster" -}}
- apiGroups: [""]
  resources: [nodes]
  verbs: [list, watch]
- apiGroups: [scheduling.k8s.io]
  resources: [priorityclasses]
  verbs: [list, watch]
- apiGroups: [modelyard.dev]
  resources: [acceleratorclasses]
  verbs: [list, watch]
{{- end }}

{{- /* A namespace with models. Server-side apply is `patch`, and `create` the first time. */ -}}
{{- define "modelyard.rules.models" -}}
- apiGroups: [modelyard.dev]
  resources: [llmdeployments, llmroutes]
  verbs: [list, watch]
- apiGroups: [modelyard.dev]
  resources: [llmdeployments/status, llmroutes/status]
  verbs: [patch]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
- apiGroups: [""]
  resources: [events]
  verbs: [create, patch]
- apiGroups: [""]
  resources: [serviceaccounts, services]
  verbs: [create, get, list, patch, watch]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [create, get, list, patch, watch]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [create, get, list, patch, watch]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [create, delete, get, list, patch, watch]
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [create, delete, get, list, patch]
- apiGroups: [keda.sh]
  resources: [scaledobjects]
  verbs: [create, delete, get, list, patch]
- apiGroups: [inference.networking.k8s.io]
  resources: [inferencepools]
  verbs: [create, delete, get, list, patch]
- apiGroups: [leaderworkerset.x-k8s.io]
  resources: [leaderworkersets]
  verbs: [create, delete, get, list, patch]
{{- end }}

{{- /* The namespace of the operator and the gateway: the only one where Secrets are read. */ -}}
{{- define "modelyard.rules.system" -}}
- apiGroups: [modelyard.dev]
  resources: [llmbudgets, llmproviders, llmtenants]
  verbs: [list]
- apiGroups: [modelyard.dev]
  resources: [llmbudgets/status, llmproviders/status, llmtenants/status]
  verbs: [patch]
# API keys of tenants and providers, and the gateway's certificate. Their names are said by LLMTenants and LLMProviders.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get]
# The ledger.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [create, delete, get, list, update]
# Which Envoys leave.
- apiGroups: [""]
  resources: [pods]
  verbs: [list]
{{- if .Values.xds.tls.enabled }}
# The certificates of operator and gateway. A name cannot be asked for when an object is created.
- apiGroups: [""]
  resources: [secrets]
  verbs: [create]
- apiGroups: [""]
  resources: [secrets]
  resourceNames: [modelyard-xds-client, modelyard-xds-server]
  verbs: [update]
{{- end }}
{{- if .Values.gateway.parents }}
# The HTTPRoute from a Gateway of the cluster. Its owner is the gateway's Service.
- apiGroups: [gateway.networking.k8s.io]
  resources: [httproutes]
  verbs: [create, get, patch]
- apiGroups: [""]
  resources: [services]
  verbs: [get]
{{- end }}
# A name cannot be asked for when an object is created.
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [create]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [{{ include "modelyard.operatorName" . }}]
  verbs: [get, update]
# The label of the operator that acts.
- apiGroups: [""]
  resources: [pods]
  verbs: [patch]
{{- end }}
