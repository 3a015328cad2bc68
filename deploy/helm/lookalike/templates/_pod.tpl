{{/* The pod of the server, the same in both modes but for how the gallery is mounted. */}}
{{- define "lookalike.pod" -}}
{{- $reads := eq .Values.gallery.mode "readOnly" -}}
{{- $keys := include "lookalike.keySecret" . -}}
{{- $hosts := include "lookalike.hosts" . -}}
metadata:
  labels:
    {{- include "lookalike.labels" . | nindent 4 }}
    app.kubernetes.io/component: server
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    # A changed setting starts pods anew; changed keys are read by those that run.
    checksum/settings: {{ include (print $.Template.BasePath "/configmap.yaml") . | sha256sum }}
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  automountServiceAccountToken: false
  enableServiceLinks: false  # they would set LOOKALIKE_PORT and others for a service of that name
  securityContext:
    {{- include "lookalike.podSecurity" . | nindent 4 }}
  # After SIGTERM: the drain, then the last requests, then their answers, and some time to close.
  terminationGracePeriodSeconds: {{ add (ceil .Values.settings.drain_s) (ceil .Values.settings.request_timeout_s) (ceil .Values.settings.answer_timeout_s) 15 }}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- if and .Values.gpu.enabled .Values.gpu.runtimeClassName }}
  runtimeClassName: {{ .Values.gpu.runtimeClassName }}
  {{- end }}
  {{- with merge (dict) .Values.nodeSelector (ternary .Values.gpu.nodeSelector (dict) .Values.gpu.enabled) }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with concat .Values.tolerations (ternary .Values.gpu.tolerations list .Values.gpu.enabled) }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if $reads }}
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "lookalike.selector" . | nindent 10 }}
          app.kubernetes.io/component: server
  {{- end }}
  {{- if .Values.gallery.restoreFrom }}
  initContainers:
    - name: restore
      image: {{ include "lookalike.image" . }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      # Only where the gallery is not there yet: a pod that starts again keeps what was stored since.
      command: [sh, -euc]
      args:
        - |
          [ -e "$GALLERY/gallery.sqlite" ] || lookalike index restore "/backups/$BACKUP" "$GALLERY"
          {{- if $reads }}
          # A server that writes builds the search structure by itself; one that reads could only scan.
          [ -e "$GALLERY/snapshots" ] || lookalike index rebuild "$GALLERY"
          {{- end }}
      env:
        - {name: GALLERY, value: {{ include "lookalike.gallery" . | quote }}}
        - {name: BACKUP, value: {{ .Values.gallery.restoreFrom | quote }}}
      resources:
        {{- toYaml .Values.resources | nindent 8 }}
      securityContext:
        {{- include "lookalike.containerSecurity" . | nindent 8 }}
      volumeMounts:
        - {name: gallery, mountPath: /data}
        - {name: backups, mountPath: /backups, readOnly: true}
        - {name: temporary, mountPath: /tmp}
  {{- end }}
  containers:
    - name: server
      image: {{ include "lookalike.image" . }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      envFrom:
        - configMapRef: {name: {{ include "lookalike.fullname" . }}}
      {{- if or $hosts .Values.extraEnv }}
      env:
        {{- if $hosts }}
        # Prometheus calls a pod by its address.
        - name: POD_IP
          valueFrom: {fieldRef: {fieldPath: status.podIP}}
        - name: LOOKALIKE_ALLOWED_HOSTS
          value: {{ $hosts | quote }}
        {{- end }}
        {{- with .Values.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- end }}
      ports:
        - {name: http, containerPort: 3000, protocol: TCP}
      startupProbe:
        httpGet: {path: /livez, port: http}
        periodSeconds: 2
        timeoutSeconds: 2
        failureThreshold: {{ div (add .Values.startupSeconds 1) 2 }}
      livenessProbe:
        # 503 after a thread has been stuck for a minute: only a restart helps.
        httpGet: {path: /livez, port: http}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 3
      readinessProbe:
        httpGet: {path: /readyz, port: http}
        periodSeconds: 3
        timeoutSeconds: 3
        failureThreshold: 2
      resources:
        {{- $resources := deepCopy .Values.resources }}
        {{- if .Values.gpu.enabled }}
        {{- $card := dict .Values.gpu.resourceName .Values.gpu.count }}
        {{- $_ := set $resources "limits" (merge $card (default dict $resources.limits)) }}
        {{- end }}
        {{- toYaml $resources | nindent 8 }}
      securityContext:
        {{- include "lookalike.containerSecurity" . | nindent 8 }}
      volumeMounts:
        - {name: gallery, mountPath: /data{{ if $reads }}, readOnly: true{{ end }}}
        - {name: temporary, mountPath: /tmp}
        {{- if .Values.model.existingClaim }}
        - {name: model, mountPath: /model, readOnly: true}
        {{- end }}
        {{- if $keys }}
        - {name: keys, mountPath: /keys, readOnly: true}
        {{- end }}
        {{- with .Values.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    - name: gallery
      {{- if and $reads (not .Values.gallery.existingClaim) }}
      emptyDir: {sizeLimit: {{ .Values.gallery.size }}}
      {{- else }}
      persistentVolumeClaim: {claimName: {{ include "lookalike.galleryClaim" . }}{{ if $reads }}, readOnly: true{{ end }}}
      {{- end }}
    - name: temporary
      emptyDir: {sizeLimit: {{ .Values.temporary }}}
    {{- if .Values.gallery.restoreFrom }}
    - name: backups
      persistentVolumeClaim: {claimName: {{ include "lookalike.backupClaim" . }}}
    {{- end }}
    {{- if .Values.model.existingClaim }}
    - name: model
      persistentVolumeClaim: {claimName: {{ .Values.model.existingClaim }}, readOnly: true}
    {{- end }}
    {{- if $keys }}
    - name: keys
      secret: {secretName: {{ $keys }}, defaultMode: 288}
    {{- end }}
    {{- with .Values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}
