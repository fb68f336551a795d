//! The API server's paths.

use std::{collections::HashMap, io, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{FromRequestParts, Request, State, ws::WebSocketUpgrade},
    response::{IntoResponse, Response},
};
use base64::Engine as _;
use futures::{StreamExt, stream};
use http::{Method, StatusCode, header};
use serde_json::{Value, json};

use super::{
    CLUSTER_TOKEN, exec, faults, kubelet, logs, patch,
    select::Selector,
    store::{Answer, KINDS, Key, Refusal, Shared, Verb, not_found, refusal},
    watch::Watch,
};
use super::{faults::What, kubelet::Order};

pub(super) async fn run(listener: std::net::TcpListener, shared: Arc<Shared>) {
    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let app = Router::new().fallback(handle).with_state(shared);
    axum::serve(listener, app).await.expect("serving does not fail");
}

/// What a path names.
struct Target {
    group: String,
    version: String,
    namespace: Option<String>,
    plural: String,
    name: Option<String>,
    sub: Option<String>,
}

impl Target {
    fn parse(path: &str) -> Option<Self> {
        let mut parts = path.trim_start_matches('/').split('/').map(str::to_owned);
        let (group, version) = match parts.next()?.as_str() {
            "api" => (String::new(), parts.next()?),
            "apis" => (parts.next()?, parts.next()?),
            _ => return None,
        };
        let mut rest: Vec<String> = parts.collect();
        let namespace = if rest.len() > 2 && rest[0] == "namespaces" {
            let namespace = rest[1].clone();
            rest.drain(..2);
            Some(namespace)
        } else {
            None
        };
        let mut rest = rest.into_iter();
        let plural = rest.next()?;
        Some(Self { group, version, namespace, plural, name: rest.next(), sub: rest.next() })
    }

    fn resource(&self) -> String {
        match &self.sub {
            Some(sub) => format!("{}/{sub}", self.plural),
            None => self.plural.clone(),
        }
    }
}

type Query = HashMap<String, String>;

async fn handle(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (mut head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    if ["/readyz", "/livez", "/healthz"].contains(&path.as_str()) {
        return "ok".into_response();
    }
    if path == "/version" {
        return axum::Json(json!({"major": "1", "minor": "33", "gitVersion": "v1.33.0"}))
            .into_response();
    }
    let bearer = format!("Bearer {CLUSTER_TOKEN}");
    if head
        .headers
        .get(header::AUTHORIZATION)
        .is_none_or(|given| given.as_bytes() != bearer.as_bytes())
    {
        return refused(Refusal {
            status: StatusCode::UNAUTHORIZED,
            reason: "Unauthorized",
            message: "Unauthorized".to_owned(),
        });
    }
    let Some(target) = Target::parse(&path) else {
        return refused(no_such_path());
    };
    let text = head.uri.query().unwrap_or_default().to_owned();
    let pairs: Vec<(String, String)> = serde_urlencoded::from_str(&text).unwrap_or_default();
    let query: Query = pairs.iter().cloned().collect();
    let is = |name: &str| query.get(name).is_some_and(|value| value == "true" || value == "1");
    let verb = match target.sub.as_deref() {
        // As the authorizer sees it: a WebSocket is a GET.
        Some("log") => Verb("get"),
        Some("exec" | "attach") if head.method == Method::GET => Verb("get"),
        Some("exec" | "attach") => Verb("create"),
        _ => Verb::of(&head.method, target.name.is_some(), is("watch")),
    };
    let resource = target.resource();
    shared.record(faults::Recorded {
        verb: verb.0,
        resource: resource.clone(),
        name: target.name.clone().unwrap_or_default(),
        path: head.uri.to_string(),
    });
    let fault = faults::take(&mut shared.faults.lock().unwrap(), verb.0, &resource);
    let mut lose = false;
    match fault {
        Some(What::Refuse { status, reason, message }) => {
            let status = StatusCode::from_u16(status).unwrap();
            return refused(Refusal { status, reason, message });
        }
        Some(What::Cut) => return broken(),
        Some(What::Delay(by)) => tokio::time::sleep(by).await,
        Some(What::Lose) => lose = true,
        None => {}
    }
    if is_denied(&shared, verb.0, &resource) {
        let text = format!(
            "{resource} is forbidden: User \"system:serviceaccount:loom:loom-server\" cannot {} \
             resource \"{resource}\" in API group \"{}\" in the namespace \"{}\"",
            verb.0,
            target.group,
            target.namespace.as_deref().unwrap_or_default()
        );
        return refused(Refusal {
            status: StatusCode::FORBIDDEN,
            reason: "Forbidden",
            message: text,
        });
    }
    let upgrade = match target.sub.as_deref() {
        Some("exec" | "attach") => {
            match WebSocketUpgrade::from_request_parts(&mut head, &()).await {
                Ok(upgrade) => Some(upgrade),
                Err(error) => return error.into_response(),
            }
        }
        _ => None,
    };
    let Ok(body) = to_bytes(body, 4 * 1024 * 1024).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let content = head
        .headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let call = Call { shared, target, query, pairs, verb, content, body };
    let answer = match upgrade {
        Some(upgrade) => call.open(upgrade),
        None => call.answer(),
    };
    match answer {
        _ if lose => broken(),
        Ok(response) => response,
        Err(refusal) => refused(refusal),
    }
}

pub(super) fn is_denied(shared: &Shared, verb: &str, resource: &str) -> bool {
    shared.denied.lock().unwrap().contains(&(verb.to_owned(), resource.to_owned()))
}

fn no_such_path() -> Refusal {
    Refusal {
        status: StatusCode::NOT_FOUND,
        reason: "NotFound",
        message: "the server could not find the requested resource".to_owned(),
    }
}

fn refused(refusal: Refusal) -> Response {
    let Refusal { status, reason, message } = refusal;
    let body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": status.as_u16()});
    (status, axum::Json(body)).into_response()
}

/// The head never comes: the connection ends.
fn broken() -> Response {
    let mut response = Response::new(Body::from_stream(stream::once(async {
        Err::<axum::body::Bytes, _>(io::Error::other("cut by the test"))
    })));
    // Who asked for JSON must not take an empty body for an answer.
    response.headers_mut().insert(header::CONTENT_LENGTH, 1000.into());
    response
}

/// A request, taken apart.
struct Call {
    shared: Arc<Shared>,
    target: Target,
    query: Query,
    pairs: Vec<(String, String)>,
    verb: Verb,
    content: String,
    body: Value,
}

impl Call {
    fn is(&self, name: &str) -> bool {
        self.query.get(name).is_some_and(|value| value == "true" || value == "1")
    }

    fn key(&self) -> Answer<Key> {
        let plural = self.plural()?.2;
        let namespace = self.target.namespace.as_deref().unwrap_or_default();
        let name = self.target.name.as_deref().unwrap_or_default();
        Ok(Key::new(plural, namespace, name))
    }

    fn plural(&self) -> Answer<&'static (&'static str, &'static str, &'static str, &'static str)> {
        let target = &self.target;
        let found = KINDS.iter().find(|(group, version, plural, _)| {
            *group == target.group && *version == target.version && *plural == target.plural
        });
        found.ok_or_else(no_such_path)
    }

    fn answer(&self) -> Answer<Response> {
        if self.target.plural == "selfsubjectaccessreviews" {
            return Ok(self.review());
        }
        let key = self.key()?;
        match (self.verb.0, self.target.sub.as_deref()) {
            ("get", Some("log")) => self.log(&key),
            ("get", None | Some("status")) => {
                let found = self.shared.get(&key).map_or_else(|| not_found(&key), Ok)?;
                Ok(axum::Json(&*found).into_response())
            }
            ("list", None) => self.list(&key),
            ("watch", None) => self.watch(&key),
            ("create", None) => self.create(key),
            ("patch", None | Some("status")) => self.patch(key),
            ("update", None | Some("status")) => self.update(&key),
            ("delete", None) => self.delete(&key),
            ("deletecollection", None) => self.delete_all(&key),
            _ => Err(no_such_path()),
        }
    }

    /// May the account do this?
    fn review(&self) -> Response {
        let asked = &self.body["spec"]["resourceAttributes"];
        let text = |name: &str| asked[name].as_str().unwrap_or_default().to_owned();
        let resource = match text("subresource") {
            sub if sub.is_empty() => text("resource"),
            sub => format!("{}/{sub}", text("resource")),
        };
        let allowed = !is_denied(&self.shared, &text("verb"), &resource);
        let mut body = self.body.clone();
        body["status"] = json!({"allowed": allowed});
        (StatusCode::CREATED, axum::Json(body)).into_response()
    }

    fn selector(&self) -> Selector {
        let get = |name: &str| self.query.get(name).map(String::as_str);
        Selector::parse(get("labelSelector"), get("fieldSelector"))
    }

    fn list(&self, key: &Key) -> Answer<Response> {
        let (group, version, _, kind) = self.plural()?;
        let selector = self.selector();
        let state = self.shared.state.lock().unwrap();
        let limit = self.query.get("limit").and_then(|limit| limit.parse().ok());
        let limit = limit.filter(|limit| *limit > 0).unwrap_or(usize::MAX);
        let after = self.query.get("continue").cloned().unwrap_or_default();
        let mut items = Vec::new();
        let mut more = None;
        for (at, body) in &state.objects {
            let fits = at.plural == key.plural
                && self.target.namespace.as_ref().is_none_or(|one| *one == at.namespace)
                && at.name > after
                && selector.fits(body);
            if !fits {
                continue;
            }
            if items.len() == limit {
                more = items.last().map(|last: &Arc<Value>| last["metadata"]["name"].clone());
                break;
            }
            items.push(Arc::clone(body));
        }
        let mut metadata = json!({"resourceVersion": state.version.to_string()});
        if let Some(more) = more {
            metadata["continue"] = more;
        }
        let version =
            if group.is_empty() { (*version).to_owned() } else { format!("{group}/{version}") };
        let items: Vec<&Value> = items.iter().map(|item| &**item).collect();
        let body = json!({"kind": format!("{kind}List"), "apiVersion": version,
            "metadata": metadata, "items": items});
        Ok(axum::Json(body).into_response())
    }

    fn watch(&self, key: &Key) -> Answer<Response> {
        let (group, version, _, kind) = *self.plural()?;
        let version =
            if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
        let from = self.query.get("resourceVersion").map(String::as_str).unwrap_or_default();
        let secs = self.query.get("timeoutSeconds").and_then(|secs| secs.parse().ok());
        let watch = Watch {
            plural: key.plural,
            kind,
            api_version: version,
            namespace: self.target.namespace.clone(),
            selector: self.selector(),
            from: from.parse().ok().filter(|from| *from > 0),
            bookmarks: self.is("allowWatchBookmarks"),
            initial: self.is("sendInitialEvents"),
            timeout: Duration::from_secs(secs.unwrap_or(1800)),
        };
        Ok(watch.response(Arc::clone(&self.shared)))
    }

    fn create(&self, mut key: Key) -> Answer<Response> {
        let mut body = self.body.clone();
        if !body.is_object() {
            return refusal(400, "BadRequest", "the body is no object");
        }
        let metadata = &body["metadata"];
        key.name = match (metadata["name"].as_str(), metadata["generateName"].as_str()) {
            (Some(name), _) if !name.is_empty() => name.to_owned(),
            (_, Some(prefix)) => format!(
                "{prefix}{:x}",
                self.shared.event_number.fetch_add(1, std::sync::atomic::Ordering::SeqCst)
            ),
            _ => return refusal(422, "Invalid", "metadata.name: Required value"),
        };
        body["metadata"]["name"] = json!(key.name);
        self.check(&key, &body)?;
        if key.plural == "secrets" {
            encode(&mut body);
        }
        if key.plural == "pods" {
            body["status"] = json!({"phase": "Pending", "qosClass": "Burstable"});
        }
        if self.query.contains_key("dryRun") {
            return Ok((StatusCode::CREATED, axum::Json(body)).into_response());
        }
        let made = self.shared.create(key.clone(), body)?;
        if key.plural == "pods" {
            kubelet::adopt(&self.shared, &key);
        }
        Ok((StatusCode::CREATED, axum::Json(&*made)).into_response())
    }

    /// The little that the API server would refuse and that is easy to get wrong.
    fn check(&self, key: &Key, body: &Value) -> Answer<()> {
        let is_name = |name: &str| {
            !name.is_empty()
                && name.len() <= 253
                && name
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c))
                && name.starts_with(|c: char| c.is_ascii_alphanumeric())
                && name.ends_with(|c: char| c.is_ascii_alphanumeric())
        };
        if !is_name(&key.name) {
            let text = format!("metadata.name: Invalid value: \"{}\"", key.name);
            return refusal(422, "Invalid", text);
        }
        if !key.namespace.is_empty() {
            let namespace = Key::new("namespaces", "", &key.namespace);
            if self.shared.get(&namespace).is_none() {
                return not_found(&namespace);
            }
        }
        for (name, value) in body["metadata"]["labels"].as_object().into_iter().flatten() {
            let value = value.as_str().unwrap_or_default();
            let is_value = value.len() <= 63
                && value.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
                && (value.is_empty()
                    || value.starts_with(|c: char| c.is_ascii_alphanumeric())
                        && value.ends_with(|c: char| c.is_ascii_alphanumeric()));
            if !is_value {
                let text = format!("metadata.labels: Invalid value: \"{value}\" of {name}");
                return refusal(422, "Invalid", text);
            }
        }
        if key.plural == "pods" {
            let containers = body["spec"]["containers"].as_array();
            if containers.is_none_or(Vec::is_empty) {
                return refusal(422, "Invalid", "spec.containers: Required value");
            }
            for container in containers.into_iter().flatten() {
                let image = container["image"].as_str().unwrap_or_default();
                if image.is_empty() || image.trim() != image {
                    return refusal(422, "Invalid", "spec.containers[0].image: Invalid value");
                }
            }
        }
        Ok(())
    }

    fn patch(&self, key: Key) -> Answer<Response> {
        let is_apply = self.content.starts_with("application/apply-patch");
        if is_apply && self.shared.get(&key).is_none() {
            return self.create_applied(key);
        }
        let content = self.content.clone();
        let changed = self.shared.try_change(&key, |body| {
            let wanted = &self.body["metadata"]["resourceVersion"];
            if wanted.is_string() && *wanted != body["metadata"]["resourceVersion"] {
                return conflict(&key);
            }
            let spec = body["spec"].clone();
            if content.starts_with("application/json-patch") {
                patch::steps(body, &self.body)?;
            } else {
                let mut wanted = self.body.clone();
                for own in ["resourceVersion", "uid", "managedFields"] {
                    if let Some(metadata) = wanted["metadata"].as_object_mut() {
                        metadata.remove(own);
                    }
                }
                patch::merge(body, &wanted);
            }
            if key.plural == "secrets" {
                encode(body);
            }
            fixed(&key, &spec, &body["spec"])
        })?;
        Ok(axum::Json(&*changed).into_response())
    }

    fn create_applied(&self, key: Key) -> Answer<Response> {
        let mut body = self.body.clone();
        body["metadata"]["name"] = json!(key.name);
        let call = Self {
            shared: Arc::clone(&self.shared),
            target: Target {
                name: None,
                sub: None,
                ..Target::parse(&self.path()).ok_or_else(no_such_path)?
            },
            query: self.query.clone(),
            pairs: Vec::new(),
            verb: Verb("create"),
            content: String::new(),
            body,
        };
        call.create(Key { name: String::new(), ..key })
    }

    fn path(&self) -> String {
        let target = &self.target;
        let root = if target.group.is_empty() {
            format!("/api/{}", target.version)
        } else {
            format!("/apis/{}/{}", target.group, target.version)
        };
        match &target.namespace {
            Some(namespace) => format!("{root}/namespaces/{namespace}/{}", target.plural),
            None => format!("{root}/{}", target.plural),
        }
    }

    fn update(&self, key: &Key) -> Answer<Response> {
        let changed = self.shared.try_change(key, |body| {
            let wanted = &self.body["metadata"]["resourceVersion"];
            if wanted.is_string() && *wanted != body["metadata"]["resourceVersion"] {
                return conflict(key);
            }
            let metadata = body["metadata"].clone();
            let spec = body["spec"].clone();
            *body = self.body.clone();
            for own in ["uid", "creationTimestamp", "generation", "namespace", "resourceVersion"] {
                if !metadata[own].is_null() {
                    body["metadata"][own] = metadata[own].clone();
                }
            }
            if key.plural == "secrets" {
                encode(body);
            }
            fixed(key, &spec, &body["spec"])
        })?;
        Ok(axum::Json(&*changed).into_response())
    }

    fn delete(&self, key: &Key) -> Answer<Response> {
        let found = self.shared.get(key).map_or_else(|| not_found(key), Ok)?;
        let wanted = &self.body["preconditions"];
        for (name, value) in wanted.as_object().into_iter().flatten() {
            if !value.is_null() && found["metadata"][name] != *value {
                let text = format!(
                    "Precondition failed: {name} in precondition: {value}, {name} in object meta: {}",
                    found["metadata"][name]
                );
                return refusal(409, "Conflict", text);
            }
        }
        if key.plural == "pods" {
            let grace = self.query.get("gracePeriodSeconds").and_then(|secs| secs.parse().ok());
            let grace = self.body["gracePeriodSeconds"].as_i64().or(grace);
            let pod = delete_pod(&self.shared, key, grace)?;
            return Ok(axum::Json(&*pod).into_response());
        }
        self.shared.remove(key);
        let body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {},
            "status": "Success", "details": {"name": key.name, "uid": found["metadata"]["uid"]}});
        Ok(axum::Json(body).into_response())
    }

    fn delete_all(&self, key: &Key) -> Answer<Response> {
        let selector = self.selector();
        for body in self.shared.all(key.plural, &key.namespace) {
            if selector.fits(&body) {
                let name = body["metadata"]["name"].as_str().unwrap_or_default();
                let key = Key::new(key.plural, &key.namespace, name);
                if key.plural == "pods" {
                    delete_pod(&self.shared, &key, None)?;
                } else {
                    self.shared.remove(&key);
                }
            }
        }
        let body =
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"});
        Ok(axum::Json(body).into_response())
    }

    fn container(&self, key: &Key) -> Answer<(Arc<kubelet::Machine>, String)> {
        let Some(pod) = self.shared.get(key) else { return not_found(key) };
        let Some(machine) = self.shared.machine(&key.namespace, &key.name) else {
            return not_found(key);
        };
        let container =
            self.query.get("container").cloned().unwrap_or_else(|| machine.main.clone());
        let known = ["containers", "initContainers"].iter().any(|which| {
            pod["spec"][which]
                .as_array()
                .is_some_and(|all| all.iter().any(|one| one["name"] == *container))
        });
        if !known {
            let text = format!("container {container} is not valid for pod {}", key.name);
            return refusal(400, "BadRequest", text);
        }
        let status = ["containerStatuses", "initContainerStatuses"].iter().find_map(|which| {
            pod["status"][which].as_array()?.iter().find(|one| one["name"] == *container)
        });
        let state = status.map(|status| status["state"].clone()).unwrap_or_default();
        if state.get("running").is_none() && state.get("terminated").is_none() {
            let why = state["waiting"]["reason"].as_str().unwrap_or("ContainerCreating");
            let text = format!(
                "container \"{container}\" in pod \"{}\" is waiting to start: {why}",
                key.name
            );
            return refusal(400, "BadRequest", text);
        }
        Ok((machine, container))
    }

    fn log(&self, key: &Key) -> Answer<Response> {
        let (machine, container) = self.container(key)?;
        let number = |name: &str| self.query.get(name).and_then(|number| number.parse().ok());
        let since = self.query.get("sinceTime").map(|at| {
            chrono::DateTime::parse_from_rfc3339(at)
                .map(|at| at.to_utc())
                .or_else(|_| refusal(400, "BadRequest", format!("{at} is no time")))
        });
        let ask = logs::Ask {
            follow: self.is("follow"),
            timestamps: self.is("timestamps"),
            since: since.transpose()?,
            tail: number("tailLines"),
            limit: number("limitBytes"),
        };
        let lines = machine.log(&container).read(ask).map(Ok::<_, std::convert::Infallible>);
        let mut response = Response::new(Body::from_stream(lines));
        response.headers_mut().insert(header::CONTENT_TYPE, "text/plain".parse().unwrap());
        Ok(response)
    }

    fn open(&self, upgrade: WebSocketUpgrade) -> Answer<Response> {
        let key = self.key()?;
        let (machine, _) = self.container(&key)?;
        if machine.over.borrow().is_some() {
            let text = format!(
                "cannot exec into a container in a completed pod; current phase is {}",
                self.shared.get(&key).map(|pod| pod["status"]["phase"].clone()).unwrap_or_default()
            );
            return refusal(400, "BadRequest", text);
        }
        let command: Vec<String> = self
            .pairs
            .iter()
            .filter(|(name, _)| name == "command")
            .map(|(_, value)| value.clone())
            .collect();
        let ask = exec::Ask {
            command: (self.target.sub.as_deref() == Some("exec")).then_some(command),
            stdin: self.is("stdin"),
            stdout: self.is("stdout"),
            stderr: self.is("stderr"),
        };
        let only_v4 = self.shared.only_v4.load(std::sync::atomic::Ordering::SeqCst);
        Ok(exec::open(upgrade, only_v4, machine, ask))
    }
}

fn conflict<T>(key: &Key) -> Answer<T> {
    let text = format!(
        "Operation cannot be fulfilled on {} \"{}\": the object has been modified",
        key.plural, key.name
    );
    refusal(409, "Conflict", text)
}

/// Of a pod little more than its deadline can be changed.
fn fixed(key: &Key, before: &Value, after: &Value) -> Answer<()> {
    if key.plural != "pods" {
        return Ok(());
    }
    let strip = |spec: &Value| {
        let mut spec = spec.clone();
        if let Some(spec) = spec.as_object_mut() {
            spec.remove("activeDeadlineSeconds");
            spec.remove("tolerations");
        }
        spec
    };
    if strip(before) != strip(after) {
        let text = "pod updates may not change fields other than `spec.activeDeadlineSeconds`";
        return refusal(422, "Invalid", text);
    }
    let (old, new) = (&before["activeDeadlineSeconds"], &after["activeDeadlineSeconds"]);
    if old.is_i64() && (new.is_null() || new.as_i64() > old.as_i64()) {
        let text = "spec.activeDeadlineSeconds: Invalid value: must be less than or equal to previous value";
        return refusal(422, "Invalid", text);
    }
    Ok(())
}

/// `stringData` becomes `data`.
fn encode(body: &mut Value) {
    let Some(plain) = body.as_object_mut().and_then(|body| body.remove("stringData")) else {
        return;
    };
    for (name, value) in plain.as_object().into_iter().flatten() {
        let text = value.as_str().unwrap_or_default();
        let encoded = base64::engine::general_purpose::STANDARD.encode(text);
        body["data"][name] = json!(encoded);
    }
}

/// A pod without a node goes at once, another when its containers have ended.
pub(super) fn delete_pod(shared: &Shared, key: &Key, grace: Option<i64>) -> Answer<Arc<Value>> {
    let Some(pod) = shared.get(key) else { return not_found(key) };
    let default = pod["spec"]["terminationGracePeriodSeconds"].as_i64().unwrap_or(30);
    let grace = grace.unwrap_or(default);
    if grace == 0 || pod["spec"]["nodeName"].is_null() {
        shared.remove(key);
        return Ok(pod);
    }
    let now = shared.now();
    let changed = shared.change(key, |pod| {
        let until = now + chrono::Duration::seconds(grace);
        let until = until.to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
        if pod["metadata"]["deletionTimestamp"].is_null() {
            pod["metadata"]["deletionTimestamp"] = json!(until);
            pod["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
        }
    })?;
    if let Some(machine) = shared.machine(&key.namespace, &key.name) {
        machine.order(Order::Delete);
    }
    Ok(changed)
}
