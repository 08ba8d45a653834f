{{- /* Name of the release's objects: what `matriarch-operator manifests` calls them, if the release is called `matriarch`. */ -}}
{{- define "matriarch.fullname" -}}
{{- $own := ternary .Release.Name (printf "%s-operator" .Release.Name) (contains "operator" .Release.Name) -}}
{{- default $own .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{- define "matriarch.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "matriarch.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.create is false: write serviceAccount.name, the account that the operator is to use" .Values.serviceAccount.name -}}
{{- end -}}
{{- end }}

{{- /* These never change: a Deployment does not let them. */ -}}
{{- define "matriarch.selectorLabels" -}}
app.kubernetes.io/name: matriarch-operator
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- define "matriarch.labels" -}}
{{ include "matriarch.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- /* list of the root and an image: a digest goes before a tag. */ -}}
{{- define "matriarch.image" -}}
{{- $root := index . 0 -}}
{{- with index . 1 -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ default $root.Chart.AppVersion .tag }}
{{- end -}}
{{- end -}}
{{- end }}

{{- /* JSON list of the namespaces that are watched; empty: all. */ -}}
{{- define "matriarch.watched" -}}
{{- if and .Values.namespaced (empty .Values.watchNamespaces) -}}
{{- list .Release.Namespace | toJson -}}
{{- else -}}
{{- .Values.watchNamespaces | toJson -}}
{{- end -}}
{{- end }}

{{- define "matriarch.subjects" -}}
- kind: ServiceAccount
  name: {{ include "matriarch.serviceAccountName" . }}
  namespace: {{ .Release.Namespace }}
{{- end }}
