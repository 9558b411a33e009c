{{- define "modelyard.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- /* Beginning of every name. 40 characters: suffixes follow, and a Service's name has 63. */ -}}
{{- define "modelyard.fullname" -}}
{{- $name := include "modelyard.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "modelyard.operatorName" -}}
{{ include "modelyard.fullname" . }}-operator
{{- end }}

{{- define "modelyard.gatewayName" -}}
{{ include "modelyard.fullname" . }}-gateway
{{- end }}

{{- define "modelyard.xdsName" -}}
{{ include "modelyard.fullname" . }}-xds
{{- end }}

{{- /* Names of cluster-scoped objects: two releases may bear one name in two namespaces. */ -}}
{{- define "modelyard.clusterName" -}}
{{ .Release.Namespace }}-{{ include "modelyard.operatorName" . }}
{{- end }}

{{- define "modelyard.operatorAccount" -}}
{{- default (include "modelyard.operatorName" .) .Values.operator.serviceAccount.name }}
{{- end }}

{{- define "modelyard.gatewayAccount" -}}
{{- default (include "modelyard.gatewayName" .) .Values.gateway.serviceAccount.name }}
{{- end }}

{{- /* Where Envoy finds its control plane. */ -}}
{{- define "modelyard.xdsHost" -}}
{{ include "modelyard.xdsName" . }}.{{ .Release.Namespace }}.svc
{{- end }}

{{- /* What selects the pods of a component: list of the context and the component's name. */ -}}
{{- define "modelyard.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: modelyard
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- /* Labels of an object of a component: list of the context and the component's name. */ -}}
{{- define "modelyard.labels" -}}
{{- $root := index . 0 -}}
{{ include "modelyard.selector" . }}
app.kubernetes.io/part-of: modelyard
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* Labels of a pod: those that change with every release of the chart are left out, so that pods stay. */ -}}
{{- define "modelyard.podLabels" -}}
{{- $root := index . 0 -}}
{{ include "modelyard.selector" . }}
app.kubernetes.io/part-of: modelyard
{{- with merge (dict) (index . 2) $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* Reference of an image: list of its values and the default tag. */ -}}
{{- define "modelyard.image" -}}
{{- $image := index . 0 }}
{{- with $image.registry }}{{ . }}/{{ end }}{{ $image.repository }}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ default (index . 1) $image.tag }}{{ end }}
{{- end }}

{{- define "modelyard.containerSecurityContext" -}}
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
privileged: false
readOnlyRootFilesystem: true
{{- end }}

{{- /* Where pods may be placed: the values of a component. */ -}}
{{- define "modelyard.scheduling" -}}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "modelyard.pullSecrets" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{- /* Namespaces whose models are looked after, as JSON; none in cluster mode. */ -}}
{{- define "modelyard.namespaces" -}}
{{- if .Values.clusterWide -}}
[]
{{- else -}}
{{- .Values.watchNamespaces | default (list .Release.Namespace) | uniq | sortAlpha | toJson }}
{{- end }}
{{- end }}

{{- /* Port of the gateway's container and Service for clients, as JSON. */ -}}
{{- define "modelyard.clientPort" -}}
{{- $tls := .Values.gateway.tls.enabled -}}
{{- dict
  "name" (ternary "https" "http" $tls)
  "container" (ternary 8443 8080 $tls)
  "service" (.Values.gateway.service.port | default (ternary 443 80 $tls))
| toJson }}
{{- end }}

{{- /* Combinations of values that the schema cannot see. Each message names the field and the remedy. */ -}}
{{- define "modelyard.check" -}}
{{- $name := include "modelyard.fullname" . }}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $name) }}
{{- fail (printf "the objects' names would begin with %q, which a Service's may not: set fullnameOverride to a letter, then letters, digits and dashes" $name) }}
{{- end }}
{{- range $field, $labels := dict "commonLabels" .Values.commonLabels "operator.podLabels" .Values.operator.podLabels "gateway.podLabels" .Values.gateway.podLabels }}
{{- range $key, $_ := $labels }}
{{- if regexMatch "^(app\\.kubernetes\\.io/(name|instance|component|part-of|version|managed-by)|helm\\.sh/chart|modelyard\\.dev/.*)$" $key }}
{{- fail (printf "%s has %s, which the chart sets itself and finds its pods by: leave it out" $field $key) }}
{{- end }}
{{- end }}
{{- end }}
{{- range list "HOME" "POD_NAME" "POD_UID" }}
{{- if hasKey ($.Values.operator.env | default dict) . }}
{{- fail (printf "operator.env has %s, which the chart sets itself: leave it out" .) }}
{{- end }}
{{- end }}
{{- if and .Values.clusterWide .Values.watchNamespaces }}
{{- fail "clusterWide looks after all namespaces: leave watchNamespaces empty, or set clusterWide to false" }}
{{- end }}
{{- if and .Values.gateway.tls.enabled (not .Values.gateway.tls.secretName) }}
{{- fail "gateway.tls.enabled needs gateway.tls.secretName: a Secret of the type kubernetes.io/tls in the release's namespace" }}
{{- end }}
{{- if and .Values.gateway.tls.enabled (not .Values.xds.tls.enabled) }}
{{- fail "gateway.tls.enabled needs xds.tls.enabled: Envoy gets the certificate's key over an encrypted connection only" }}
{{- end }}
{{- if and .Values.gateway.hostnames (not .Values.gateway.parents) }}
{{- fail "gateway.hostnames are those of the HTTPRoute from gateway.parents: name a Gateway there, or leave them out" }}
{{- end }}
{{- if and .Values.networkPolicy.enabled (not .Values.networkPolicy.apiServerPorts) }}
{{- fail "networkPolicy.apiServerPorts is empty, which would let the operator reach every port: name those of the API server" }}
{{- end }}
{{- if and .Values.networkPolicy.enabled .Values.operator.readHub }}
{{- range $variable, $url := .Values.operator.env }}
{{- if eq (upper $variable) "HTTPS_PROXY" }}
{{- $port := regexFind ":[0-9]+/?$" $url | trimAll ":/" | default (ternary "443" "80" (hasPrefix "https:" $url)) | int }}
{{- $open := false }}
{{- range $.Values.networkPolicy.hubPorts }}
{{- if eq (int .) $port }}{{ $open = true }}{{ end }}
{{- end }}
{{- if not $open }}
{{- fail (printf "operator.env has a proxy on port %d, and networkPolicy.hubPorts not: add the port, or set operator.readHub to false" $port) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- with .Values.gateway.maxDrainSeconds }}
{{- if lt (int .) (add $.Values.gateway.drainSeconds 30 | int) }}
{{- fail (printf "gateway.drainSeconds is %d and gateway.maxDrainSeconds %d: leave 30 seconds between them, for the last reading of an Envoy's counters" (int $.Values.gateway.drainSeconds) (int .)) }}
{{- end }}
{{- end }}
{{- $service := .Values.gateway.service }}
{{- if eq $service.type "ClusterIP" }}
{{- range list "nodePort" "externalTrafficPolicy" }}
{{- if index $service . }}
{{- fail (printf "gateway.service.%s is not for the type ClusterIP: set gateway.service.type to NodePort or LoadBalancer, or leave it out" .) }}
{{- end }}
{{- end }}
{{- end }}
{{- if ne $service.type "LoadBalancer" }}
{{- range list "loadBalancerClass" "loadBalancerSourceRanges" }}
{{- if index $service . }}
{{- fail (printf "gateway.service.%s is for the type LoadBalancer alone: set gateway.service.type to it, or leave it out" .) }}
{{- end }}
{{- end }}
{{- end }}
{{- with (.Values.gateway.resources | default dict).limits }}
{{- $limit := .memory | toString }}
{{- $mib := 0.0 }}
{{- range $unit, $bytes := dict "Ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 "k" 1e3 "M" 1e6 "G" 1e9 }}
{{- if hasSuffix $unit $limit }}{{ $mib = divf (mulf (trimSuffix $unit $limit | float64) $bytes) 1048576.0 }}{{ end }}
{{- end }}
{{- if and $mib (ge (float64 $.Values.gateway.heapMiB) $mib) }}
{{- fail (printf "gateway.heapMiB is %d and gateway.resources.limits.memory %s: keep the heap below the limit, or the kernel ends Envoy before it refuses requests" (int $.Values.gateway.heapMiB) $limit) }}
{{- end }}
{{- end }}
{{- if and .Values.openshift.modelSCC .Values.clusterWide }}
{{- fail "openshift.modelSCC is for watchNamespaces: with clusterWide bind the SCC nonroot-v2 yourself, and set openshift.modelSCC to false" }}
{{- end }}
{{- end }}
