{{- /* Labels and annotations of every CustomResourceDefinition, as the rest of its `metadata`. */ -}}
{{- define "modelyard-crds.metadata" -}}
labels:
  {{- merge (dict
    "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version)
    "app.kubernetes.io/name" "modelyard"
    "app.kubernetes.io/component" "crds"
    "app.kubernetes.io/instance" .Release.Name
    "app.kubernetes.io/part-of" "modelyard"
    "app.kubernetes.io/version" .Chart.AppVersion
    "app.kubernetes.io/managed-by" .Release.Service
  ) .Values.labels | toYaml | nindent 2 }}
{{- $annotations := merge (dict) .Values.annotations }}
{{- if .Values.keep }}
{{- $annotations = merge (dict "helm.sh/resource-policy" "keep") $annotations }}
{{- end }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
