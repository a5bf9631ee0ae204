{{/* The name of everything the chart makes, short enough for a label. */}}
{{- define "ganery.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{/* What never changes in the life of a release: a Deployment's selector cannot. */}}
{{- define "ganery.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "ganery.labels" -}}
{{ include "ganery.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "ganery.image" -}}
{{- if .Values.image.digest }}{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else }}{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{/* The fewest replicas there will be. */}}
{{- define "ganery.replicas" -}}
{{- if eq .Values.autoscaler.kind "none" }}{{ .Values.replicas }}{{ else }}{{ .Values.autoscaler.minReplicas }}{{ end }}
{{- end }}

{{/* What the template of pods and the test both need to be accepted by Pod Security "restricted". */}}
{{- define "ganery.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "ganery.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Where pods may run, and with which right to pull. */}}
{{- define "ganery.scheduling" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- if .Values.gpu.enabled }}
{{- with .Values.gpu.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with merge (dict) .Values.gpu.nodeSelector .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with concat .Values.gpu.tolerations .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- else }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}

{{/* Requests or limits, with the GPU: (list . .Values.resources.limits). */}}
{{- define "ganery.amounts" -}}
{{- $values := (index . 0).Values -}}
{{ toYaml (index . 1) }}
{{- if $values.gpu.enabled }}
{{ $values.gpu.resource }}: {{ $values.gpu.count }}
{{- end }}
{{- end }}

{{- define "ganery.bundlesMount" -}}
{{- if ne .Values.bundles.source "image" }}
- {name: bundles, mountPath: /models, readOnly: true}
{{- end }}
{{- end }}

{{- define "ganery.bundlesVolume" -}}
{{- if eq .Values.bundles.source "claim" }}
- name: bundles
  persistentVolumeClaim: {claimName: {{ .Values.bundles.claim }}, readOnly: true}
{{- end }}
{{- if eq .Values.bundles.source "oci" }}
- name: bundles
  image: {reference: {{ .Values.bundles.oci.reference | quote }}, pullPolicy: {{ .Values.bundles.oci.pullPolicy }}}
{{- end }}
{{- end }}

{{/* The one way out that pods have: to the cluster's DNS. */}}
{{- define "ganery.dnsEgress" -}}
- to:
    - namespaceSelector:
        matchLabels: {{- toYaml .Values.networkPolicy.dnsNamespaceLabels | nindent 10 }}
      podSelector:
        matchLabels: {{- toYaml .Values.networkPolicy.dnsPodLabels | nindent 10 }}
  ports:
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}
{{- end }}

{{/* The pods of bulk generation: none that the Service, the budget or the Deployment selects. */}}
{{- define "ganery.bulkSelector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}-bulk
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
