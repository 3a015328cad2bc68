{{- define "lookalike.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "lookalike.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "lookalike.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "lookalike.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "lookalike.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{- $tag := printf "%s%s" .Chart.AppVersion (ternary "-gpu" "-cpu" .Values.gpu.enabled) -}}
{{ .Values.image.repository }}:{{ default $tag .Values.image.tag }}
{{- end -}}
{{- end -}}

{{- define "lookalike.gallery" -}}
/data/{{ .Values.gallery.folder }}
{{- end -}}

{{- define "lookalike.galleryClaim" -}}
{{ default (printf "%s-gallery" (include "lookalike.fullname" .)) .Values.gallery.existingClaim }}
{{- end -}}

{{- define "lookalike.backupClaim" -}}
{{ default (printf "%s-backups" (include "lookalike.fullname" .)) .Values.backup.existingClaim }}
{{- end -}}

{{- define "lookalike.keySecret" -}}
{{- if .Values.apiKeys.existingSecret -}}
{{ .Values.apiKeys.existingSecret }}
{{- else if .Values.apiKeys.toml -}}
{{ include "lookalike.fullname" . }}-keys
{{- end -}}
{{- end -}}

{{/* The names that this service goes by: those that were given, and then its own. */}}
{{- define "lookalike.hosts" -}}
{{- $given := concat (.Values.settings.allowed_hosts | default list) (ternary .Values.ingress.hosts list .Values.ingress.enabled) -}}
{{- if has "*" $given -}}
*
{{- else if $given -}}
{{- $name := include "lookalike.fullname" . -}}
{{- $within := printf "%s.%s" $name .Release.Namespace -}}
{{- join "," (concat $given (list $name $within (printf "%s.svc" $within) (printf "%s.svc.cluster.local" $within) "localhost" "127.0.0.1" "$(POD_IP)") | uniq) -}}
{{- end -}}
{{- end -}}

{{/* A setting as text: numbers in full, lists with commas. */}}
{{- define "lookalike.text" -}}
{{- if kindIs "slice" . -}}
{{ join "," . }}
{{- else if and (kindIs "float64" .) (eq (floor .) .) -}}
{{ int64 . }}
{{- else -}}
{{ . }}
{{- end -}}
{{- end -}}

{{/* What goes together, and what does not. */}}
{{- define "lookalike.check" -}}
{{- if eq .Values.gallery.mode "writable" -}}
{{- if .Values.autoscaling.enabled -}}
{{- fail "autoscaling.enabled needs gallery.mode=readOnly: a gallery that is written to is one pod's alone" -}}
{{- end -}}
{{- if ne .Values.gallery.accessMode "ReadWriteOnce" -}}
{{- if and .Values.backup.enabled (eq .Values.gallery.accessMode "ReadWriteOncePod") -}}
{{- fail "backup.enabled needs gallery.accessMode=ReadWriteOnce: the backup is a second pod on the gallery's volume" -}}
{{- end -}}
{{- end -}}
{{- else -}}
{{- if .Values.backup.enabled -}}
{{- fail "backup.enabled needs gallery.mode=writable: nothing is stored in one that is only read" -}}
{{- end -}}
{{- if not (or .Values.gallery.existingClaim .Values.gallery.restoreFrom) -}}
{{- fail "gallery.mode=readOnly needs gallery.existingClaim, or gallery.restoreFrom with backup.existingClaim" -}}
{{- end -}}
{{- if and .Values.gallery.existingClaim .Values.gallery.restoreFrom -}}
{{- fail "gallery.mode=readOnly takes gallery.existingClaim or gallery.restoreFrom, not both: nothing can be restored where nothing can be written" -}}
{{- end -}}
{{- end -}}
{{- if and .Values.gallery.restoreFrom (not .Values.backup.enabled) (not .Values.backup.existingClaim) -}}
{{- fail "gallery.restoreFrom needs backup.existingClaim, the volume with the backup of that name" -}}
{{- end -}}
{{- if and .Values.model.existingClaim (not .Values.model.path) -}}
{{- fail "model.existingClaim needs model.path, such as /model/photos" -}}
{{- end -}}
{{- if and .Values.apiKeys.toml .Values.apiKeys.existingSecret -}}
{{- fail "apiKeys takes toml or existingSecret, not both" -}}
{{- end -}}
{{- if and .Values.autoscaling.enabled (gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas)) -}}
{{- fail "autoscaling.minReplicas is above autoscaling.maxReplicas" -}}
{{- end -}}
{{- end -}}

{{- define "lookalike.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ .Values.user }}
runAsGroup: {{ .Values.user }}
fsGroup: {{ .Values.user }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "lookalike.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}
