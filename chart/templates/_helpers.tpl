{{- define "nightshift.labels" -}}
app.kubernetes.io/name: nightshift
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}
{{- define "nightshift.selector" -}}
app.kubernetes.io/name: nightshift
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
{{/* Of a part: its labels and selector are those of the release, and say which part it is. */}}
{{- define "nightshift.part" -}}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{/* What PodSecurity "restricted" demands of a Pod, and that nothing of it asks Kubernetes. */}}
{{- define "nightshift.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.image.pullSecrets }}
imagePullSecrets: {{- range . }}
  - name: {{ include "nightshift.asWritten" . | quote }}
{{- end }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- end }}
{{/* A value as it was written: a large number of a file of values Helm itself would write as 1e+07. */}}
{{- define "nightshift.asWritten" -}}
{{- kindIs "float64" . | ternary (toJson .) (toString .) }}
{{- end }}
{{/* A tag of digits alone is a number where --set gives it. */}}
{{- define "nightshift.image" -}}
{{- required "image.repository: say where your image is" .Values.image.repository }}:{{ include "nightshift.asWritten" .Values.image.tag }}
{{- end }}
{{/* The same of a container, and which image it has. */}}
{{- define "nightshift.container" -}}
image: {{ include "nightshift.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}
{{/* Variables of the values and of the Secret. Of a volume itself root is the owner: the home, which
     must be its owner's alone, is a folder in it. */}}
{{- define "nightshift.home" -}}
- {name: NIGHTSHIFT_HOME, value: /var/lib/nightshift/home}
{{- end }}
{{- define "nightshift.environment" -}}
{{- range $name, $value := .Values.environment }}
{{- if not (kindIs "invalid" $value) }}
- name: {{ $name }}
  value: {{ include "nightshift.asWritten" $value | quote }}
{{- end }}
{{- end }}
{{- end }}
{{/* Of a size as Java writes it, such as 3g. */}}
{{- define "nightshift.megabytes" -}}
{{- $size := lower (toString .) }}
{{- $number := regexFind "^[0-9]+" $size | int64 }}
{{- $unit := regexFind "[kmgt]" $size }}
{{- if eq $unit "k" }}{{ div $number 1024 }}
{{- else }}{{ mul $number (get (dict "m" 1 "g" 1024 "t" 1048576) $unit | default 1) }}
{{- end }}
{{- end }}
{{- define "nightshift.secret" -}}
{{- with .Values.environmentSecret }}
envFrom:
  - secretRef: {name: {{ include "nightshift.asWritten" . | quote }}}
{{- end }}
{{- end }}
{{/* Of the Secret nothing but what reads and writes in the store. */}}
{{- define "nightshift.storeKeys" -}}
{{- range list "AWS_ACCESS_KEY_ID" "AWS_SECRET_ACCESS_KEY" "AWS_SESSION_TOKEN" }}
- name: {{ . }}
  valueFrom: {secretKeyRef: {name: {{ include "nightshift.asWritten" $.Values.environmentSecret | quote }}, key: {{ . }}, optional: true}}
{{- end }}
{{- end }}
{{- define "nightshift.ranksArePods" -}}
{{- if and (eq .Values.layout "apart") (eq .Values.apart.ranks.where "pods") }}yes{{ end }}
{{- end }}
{{/* Whether they meet at the Pod of their stage: those in Pods, and those on executors of Spark. */}}
{{- define "nightshift.ranksAreElsewhere" -}}
{{- $environment := .Values.environment | default dict }}
{{- if and (eq .Values.layout "apart") (or (eq .Values.apart.ranks.where "pods") (eq (toString $environment.NIGHTSHIFT_RANK_EXECUTORS) "on")) }}yes{{ end }}
{{- end }}
{{- define "nightshift.executorsArePods" -}}
{{- if and (eq .Values.layout "apart") (eq .Values.apart.sparkExecutors.where "pods") }}yes{{ end }}
{{- end }}
{{- define "nightshift.tasksArePods" -}}
{{- if and (eq .Values.layout "apart") (eq .Values.apart.tasks.where "pods") }}yes{{ end }}
{{- end }}
{{/* Whether stages ask Kubernetes for Pods. */}}
{{- define "nightshift.stagesMakePods" -}}
{{- if or (include "nightshift.tasksArePods" .) (include "nightshift.ranksArePods" .) (include "nightshift.executorsArePods" .) }}yes{{ end }}
{{- end }}
{{/* What Airflow's parts, and tasks in Pods, are told of it. */}}
{{- define "nightshift.airflow" -}}
# By its address Pods find what ran where: names of Pods lead nowhere.
- name: AIRFLOW__CORE__HOSTNAME_CALLABLE
  value: airflow.utils.net.get_host_ip_address
{{- if include "nightshift.tasksArePods" . }}
- {name: AIRFLOW__CORE__EXECUTOR, value: KubernetesExecutor}
{{- if .Values.gpus }}
- {name: NIGHTSHIFT_TRAIN_POD, value: /etc/nightshift/train.json}
{{- end }}
{{- end }}
{{- end }}
{{- define "nightshift.api" -}}
- name: NIGHTSHIFT_AIRFLOW_API
  value: http://{{ .Release.Name }}:{{ .Values.service.port }}
{{- end }}
{{/* Of what computes: by it its driver reaches a cluster of Spark's, and that the driver. */}}
{{- define "nightshift.driver" -}}
- name: NIGHTSHIFT_SPARK_MASTER
  value: {{ if include "nightshift.executorsArePods" . }}k8s://https://kubernetes.default.svc{{ else }}spark://{{ .Release.Name }}-spark:7077{{ end }}
- name: NIGHTSHIFT_SPARK_HOST
  valueFrom: {fieldRef: {fieldPath: status.podIP}}
- name: NIGHTSHIFT_SPARK_CORES
  value: {{ .Values.apart.stages.sparkCores | quote }}
{{- if include "nightshift.ranksAreElsewhere" . }}
- name: NIGHTSHIFT_RENDEZVOUS_ADDRESS
  valueFrom: {fieldRef: {fieldPath: status.podIP}}
{{- end }}
{{- end }}
{{- define "nightshift.where" -}}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{/* Template of an executor's Pod; Spark adds what it is to do, its memory and its cores. */}}
{{- define "nightshift.executor" -}}
metadata:
  labels:
    {{- include "nightshift.labels" . | nindent 4 }}
    {{- include "nightshift.part" "spark-executor" | nindent 4 }}
spec:
  {{- include "nightshift.pod" . | nindent 2 }}
  {{- include "nightshift.where" .Values.apart.sparkExecutors | nindent 2 }}
  containers:
    - name: spark-executor
      {{- include "nightshift.container" . | nindent 6 }}
      command: [/usr/bin/tini, --, nightshift]
      env:
        # Nothing of it is kept: a folder that is there.
        - {name: NIGHTSHIFT_HOME, value: /tmp/home}
        {{- include "nightshift.environment" . | nindent 8 }}
        {{- include "nightshift.storeKeys" . | nindent 8 }}
      volumeMounts:
        - {name: scratch, mountPath: /tmp}
  volumes:
    - name: scratch
      emptyDir: {}
{{- end }}
{{/* Of the values what leads to the store: a file that it names is in the image, which is the same. */}}
{{- define "nightshift.network" -}}
{{- range $name := list "AWS_CA_BUNDLE" "SSL_CERT_FILE" "SSL_CERT_DIR" "http_proxy" "https_proxy" "no_proxy" "HTTP_PROXY" "HTTPS_PROXY" "NO_PROXY" }}
{{- with index $.Values.environment $name }}
- name: {{ $name }}
  value: {{ include "nightshift.asWritten" . | quote }}
{{- end }}
{{- end }}
{{- end }}
{{/* Template of a rank's Pod; the stage that trains adds what the rank is to do. */}}
{{- define "nightshift.rank" -}}
metadata:
  labels:
    {{- include "nightshift.labels" . | nindent 4 }}
    {{- include "nightshift.part" "rank" | nindent 4 }}
spec:
  {{- include "nightshift.pod" . | nindent 2 }}
  subdomain: {{ .Release.Name }}-ranks
  # It holds nothing that is not in its last checkpoint.
  terminationGracePeriodSeconds: 5
  {{- include "nightshift.where" .Values.apart.ranks | nindent 2 }}
  containers:
    - name: rank
      {{- include "nightshift.container" . | nindent 6 }}
      command: [/usr/bin/tini, --, python]
      env:
        {{- include "nightshift.network" . | nindent 8 }}
        {{- include "nightshift.storeKeys" . | nindent 8 }}
      resources: {{- toYaml .Values.apart.ranks.resources | nindent 8 }}
      volumeMounts:
        - {name: scratch, mountPath: /tmp}
  volumes:
    - name: scratch
      emptyDir: {}
{{- end }}
{{/* Template of a task's Pod; Airflow adds which task it is. It takes the `root` of all values, and how
     many `gpus` the Pod has. */}}
{{- define "nightshift.task" -}}
{{- with .root }}
metadata:
  labels:
    {{- include "nightshift.labels" . | nindent 4 }}
    {{- include "nightshift.part" "task" | nindent 4 }}
spec:
  {{- include "nightshift.pod" . | nindent 2 }}
  # Airflow has a task tried again; of its Pod it wants to know how it ended.
  restartPolicy: Never
  {{- include "nightshift.where" .Values.apart.tasks | nindent 2 }}
  containers:
    # So Airflow calls it.
    - name: base
      {{- include "nightshift.container" . | nindent 6 }}
      command: [/usr/bin/tini, --, nightshift, task]
      env:
        {{- include "nightshift.home" . | nindent 8 }}
        {{- include "nightshift.airflow" . | nindent 8 }}
        {{- include "nightshift.api" . | nindent 8 }}
        {{- include "nightshift.driver" . | nindent 8 }}
        {{- include "nightshift.environment" . | nindent 8 }}
      {{- include "nightshift.secret" . | nindent 6 }}
      resources: {{- include "nightshift.training" (dict "own" .Values.apart.tasks.resources "gpus" $.gpus) | nindent 8 }}
      volumeMounts:
        - {name: state, mountPath: /var/lib/nightshift}
        - {name: scratch, mountPath: /tmp}
        {{- if $.gpus }}
        - {name: shared, mountPath: /dev/shm}
        {{- end }}
  volumes:
    # Nothing of it is kept: the log goes to the store when the task has ended.
    - name: state
      emptyDir: {}
    - name: scratch
      emptyDir: {}
    {{- if $.gpus }}
    - name: shared
      emptyDir: {medium: Memory, sizeLimit: 1Gi}
    {{- end }}
{{- end }}
{{- end }}
{{/* Of a Pod that trains: its resources, and GPUs beside them. */}}
{{- define "nightshift.training" -}}
{{- /* In a file of values there may be none. */}}
{{- $own := .own | default dict }}
{{- $limits := $own.limits | default dict }}
{{- if .gpus }}
{{- $limits = merge (dict "nvidia.com/gpu" .gpus) $limits }}
{{- end }}
{{- toYaml (merge (dict "limits" $limits) $own) }}
{{- end }}
