//! Servers with names: several containers share an address, a localhost and a size; what survives whose death; services
//! on them.

use std::fs;
use std::path::PathBuf;

use sampan_e2e::native::Native;
use sampan_e2e::sampan::{SOON, body_of};
use sampan_e2e::{Sampan, sources};
use sampan_model::Instance;
use sampan_testkit::{leftovers, wait_for, wait_until};
use serde_json::{Value, json};

/// The native API of an instance whose daemon runs.
pub(crate) struct Api(Native);

impl Api {
    pub(crate) fn of(sampan: &Sampan) -> Self {
        Self(Native::of(sampan.root()))
    }

    /// Asks; the status and the answer, null where it has no body.
    pub(crate) fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        let answer = self.0.ask(method, path, body).unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        let body = if answer.body.is_empty() { Value::Null } else { answer.json() };
        (answer.status, body)
    }

    /// Asks for what must succeed.
    #[track_caller]
    pub(crate) fn ok(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let (status, body_of) = self.ask(method, path, body);
        assert!((200..300).contains(&status), "{method} {path}: {status} {body_of}");
        body_of
    }

    /// Asks for what must be refused with this code, and with words about what to do next.
    #[track_caller]
    pub(crate) fn refused(&self, method: &str, path: &str, body: Option<&Value>, code: &str) -> String {
        let (status, answer) = self.ask(method, path, body);
        assert!(status >= 400, "{method} {path}: {status} {answer}");
        assert_eq!(answer["error"]["code"], code, "{answer}");
        answer["error"]["message"].as_str().expect("a message").to_owned()
    }

    #[track_caller]
    fn create_server(&self, name: &str, cpus: f64, memory: u64) -> Value {
        let size = json!({"cpus": cpus, "memory_bytes": memory});
        self.ok("POST", "/v1/servers", Some(&json!({"name": name, "size": size})))
    }

    /// Starts a shell of busybox on a server; its view.
    #[track_caller]
    fn shell_on(&self, server: &str, name: &str, script: &str) -> Value {
        let create = json!({"name": name, "image": "bb", "server": server, "command": ["sh", "-c", script]});
        self.ok("POST", "/v1/containers", Some(&create))
    }

    /// Runs a shell on a server to its end; its exit code and what it wrote.
    #[track_caller]
    fn run_on(&self, sampan: &Sampan, server: &str, name: &str, script: &str) -> (i64, String) {
        self.shell_on(server, name, script);
        let exit = self.ok("POST", &format!("/v1/containers/{name}/wait"), None);
        let output = sampan.ok(&["logs", name]);
        self.ok("DELETE", &format!("/v1/containers/{name}"), None);
        (exit["exit_code"].as_i64().unwrap_or(-1), output)
    }
}

/// The names of the containers of a server that run.
fn running(server: &Value) -> Vec<String> {
    let containers = server["containers"].as_array().expect("containers").iter();
    let running = containers.filter(|container| container["state"]["status"] == "running");
    running.map(|container| container["name"].as_str().expect("a name").to_owned()).collect()
}

/// Every cgroup of the instance's servers.
fn cgroups(sampan: &Sampan) -> Vec<PathBuf> {
    let group = Instance::of_root(sampan.root()).cgroup_name();
    let hierarchies = fs::read_dir("/sys/fs/cgroup").expect("cgroups").flatten().map(|entry| entry.path());
    let groups = hierarchies.chain([PathBuf::from("/sys/fs/cgroup")]).map(|hierarchy| hierarchy.join(&group));
    let entries = groups.flat_map(|group| fs::read_dir(group).into_iter().flatten().flatten());
    entries.map(|entry| entry.path()).filter(|path| path.to_string_lossy().contains("/server-")).collect()
}

/// What there is of servers outside the root.
fn of_servers(sampan: &Sampan) -> Vec<String> {
    let wires = Instance::of_root(sampan.root()).server_interface_prefix();
    let found = leftovers(sampan.root());
    let mut found: Vec<String> =
        found.into_iter().filter(|line| line.starts_with("mount ") || line.contains(&wires)).collect();
    found.extend(cgroups(sampan).into_iter().map(|path| path.display().to_string()));
    for dir in ["containers", "logs"] {
        let entries = fs::read_dir(sampan.root().join(dir)).into_iter().flatten().flatten();
        found.extend(entries.map(|entry| entry.path().display().to_string()));
    }
    found
}

/// Without servers that wait ready: what there is is counted here.
fn alone() -> Sampan {
    Sampan::new().with("SAMPAN_POOL", "0")
}

/// An instance with busybox, and its API.
fn instance() -> (Sampan, Api) {
    let sampan = alone();
    sampan.import_busybox();
    let api = Api::of(&sampan);
    (sampan, api)
}

const HTTPD: &str = "mkdir /w; echo hello > /w/x; exec httpd -f -p 127.0.0.1:7000 -h /w";
const FETCH: &str = "until wget -q -O - http://127.0.0.1:7000/x 2>/dev/null; do sleep 0.02; done";

#[test]
fn containers_share_a_server() {
    let (sampan, api) = instance();
    let server = api.create_server("lab", 1.0, 48 << 20);
    assert_eq!((&server["status"], &server["memory_bytes"]), (&json!("running"), &json!(48 << 20)));
    let web = api.shell_on("lab", "web", HTTPD);
    assert_eq!((&web["server"]["name"], &web["server"]["address"]), (&json!("lab"), &server["address"]));
    assert_eq!(web["server"]["memory_bytes"], 48 << 20, "the server's, whatever a container's own would be");

    // localhost, host name and address are one; processes and files are not
    let (code, output) = api.run_on(&sampan, "lab", "guest", &format!("{FETCH}; hostname; ls /proc; ls -d /w || true"));
    assert_eq!(code, 0, "{output}");
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(&lines[..2], ["hello", "lab"], "{output}");
    assert!(!lines.contains(&"2") || lines.iter().filter(|line| line.parse::<u32>().is_ok()).count() < 5, "{output}");
    assert!(!lines.contains(&"/w"), "{output}");
    let address = server["address"].as_str().expect("an address");
    let (_, output) = api.run_on(&sampan, "lab", "hosts", "cat /etc/hosts; ip addr show eth0");
    assert!(output.contains(&format!("{address}\tlab")) && output.contains(&format!("inet {address}/32")), "{output}");

    // each would have room for itself
    let fill = "dd if=/dev/zero of=/dev/shm/x bs=1M count=30 2>/dev/null && echo filled && sleep 1000";
    api.shell_on("lab", "first", fill);
    wait_until("the first to have filled its memory", SOON, || sampan.ok(&["logs", "first"]).contains("filled"));
    let (code, output) = api.run_on(&sampan, "lab", "second", fill);
    assert!(code != 0 && !output.contains("filled"), "{code} {output}");

    let shown = sampan.inspect("lab");
    assert_eq!((&shown["kind"], &shown["address"]), (&json!("server"), &server["address"]));
    api.refused("POST", "/v1/servers", Some(&json!({"name": "lab"})), "name_taken");
    let on_nothing = json!({"image": "bb", "server": "nowhere", "command": ["true"]});
    api.refused("POST", "/v1/containers", Some(&on_nothing), "not_found");
    let disk = json!({"size_bytes": 1 << 30, "loop_mounted": true});
    let own_disk = json!({"image": "bb", "server": "lab", "command": ["true"], "disk": disk});
    api.refused("POST", "/v1/containers", Some(&own_disk), "no_shared_disk");
    api.refused("POST", "/v1/containers/web/update", Some(&json!({"memory_bytes": 1 << 26})), "shared_size");

    api.ok("DELETE", "/v1/servers/lab", None);
    assert_eq!(of_servers(&sampan), Vec::<String>::new());
    assert_eq!(api.ok("GET", "/v1/servers", None), json!([]));
    assert_eq!(api.ok("GET", "/v1/containers", None), json!([]));
}

#[test]
fn stopped_and_started() {
    let (sampan, api) = instance();
    let before = api.create_server("lab", 1.0, 64 << 20);
    api.shell_on("lab", "web", HTTPD);
    api.shell_on("lab", "done", "exit 3");
    api.ok("POST", "/v1/containers/done/wait", None);
    let stopped = api.ok("POST", "/v1/servers/lab/stop?timeout_ms=0", None);
    assert_eq!((&stopped["status"], &stopped["address"]), (&json!("stopped"), &Value::Null));
    assert_eq!(running(&stopped), Vec::<String>::new());
    assert_eq!(cgroups(&sampan), Vec::<PathBuf>::new());
    let refused = api.refused("POST", "/v1/containers/web/start", None, "server_stopped");
    assert!(refused.contains("lab"), "{refused}");
    assert_eq!(api.ok("GET", "/v1/containers/web", None)["state"]["error"], Value::Null, "nothing was tried");

    // stopped is stopped, for the next daemon too
    sampan.ok(&["daemon", "restart"]);
    assert_eq!(api.ok("GET", "/v1/servers/lab", None)["status"], "stopped");
    let started = api.ok("POST", "/v1/servers/lab/start", None);
    assert_eq!((&started["status"], &started["address"]), (&json!("running"), &before["address"]));
    assert_eq!(running(&started), ["web"], "and what had ended by itself stays so");
    let (_, output) = api.run_on(&sampan, "lab", "guest", FETCH);
    assert_eq!(output, "hello");

    // a daemon that is stopped brings back what ran
    sampan.ok(&["daemon", "stop"]);
    assert!(!leftovers(sampan.root()).iter().any(|line| line.starts_with("cgroup") || line.starts_with("interface")));
    sampan.ok(&["ps"]);
    wait_until("what ran to run again", SOON, || running(&api.ok("GET", "/v1/servers/lab", None)) == ["web"]);
    let (_, output) = api.run_on(&sampan, "lab", "guest", FETCH);
    assert_eq!(output, "hello");
}

#[test]
fn whoever_is_killed_servers_go_on() {
    let (sampan, api) = instance();
    api.create_server("lab", 1.0, 64 << 20);
    let empty = api.create_server("empty", 1.0, 64 << 20);
    api.shell_on("lab", "web", HTTPD);
    let beside = api.shell_on("lab", "beside", "exec sleep 1000");
    for (round, role) in ["daemon", "supervisor", "edge", "daemon"].into_iter().enumerate() {
        sampan.kill(role);
        sampan.ok(&["ps"]);
        let lab = wait_for("the daemon to know", SOON, || {
            let (status, lab) = api.0.ask("GET", "/v1/servers/lab", None).ok().map(|a| (a.status, a.json()))?;
            (status == 200 && running(&lab).len() == 2).then_some(lab)
        });
        assert_eq!(running(&lab), ["beside", "web"], "after the {role}");
        assert_eq!(lab["containers"][0]["state"]["pid"], beside["state"]["pid"], "after the {role}");
        // names are answered, and both servers take new containers
        let script = format!("{FETCH}; nslookup localhost 127.0.0.11 >/dev/null 2>&1; hostname -i >/dev/null; echo on");
        let (code, output) = api.run_on(&sampan, "lab", &format!("guest{round}"), &script);
        assert_eq!((code, output.lines().next()), (0, Some("hello")), "after the {role}: {output}");
        let (code, output) = api.run_on(&sampan, "empty", &format!("alone{round}"), "ip addr show eth0");
        assert!(code == 0 && output.contains(empty["address"].as_str().expect("an address")), "{role}: {output}");
    }
    for name in ["lab", "empty"] {
        api.ok("DELETE", &format!("/v1/servers/{name}"), None);
    }
    assert_eq!(of_servers(&sampan), Vec::<String>::new());
}

#[test]
fn a_daemon_that_dies_while_it_makes_one() {
    for step in ["server_recorded", "server_made"] {
        let once = tempfile::NamedTempFile::new().expect("a file").into_temp_path();
        let sampan = alone().with("SAMPAN_FAILPOINT", format!("{step}:{}", once.display()));
        sampan.import_busybox();
        let api = Api::of(&sampan);
        let asked = api.0.ask("POST", "/v1/servers", Some(&json!({"name": "lab"})));
        assert!(asked.is_err() && !once.exists(), "the daemon never came to {step}: {asked:?}");
        sampan.ok(&["ps"]);
        // it was recorded: it is there, and whole
        assert_eq!(api.ok("GET", "/v1/servers/lab", None)["status"], "running");
        let (code, output) = api.run_on(&sampan, "lab", "guest", "ip addr show eth0");
        assert!(code == 0 && output.contains("inet 10."), "{output}");
        api.ok("DELETE", "/v1/servers/lab", None);
        assert_eq!(of_servers(&sampan), Vec::<String>::new());
        once.keep().expect("the path is let go");
    }
}

/// What a file of every cgroup of the instance's servers says, where it is there.
fn values(sampan: &Sampan, file: &str) -> Vec<String> {
    let mut directories = cgroups(sampan);
    let below: Vec<PathBuf> = directories
        .iter()
        .flat_map(|path| fs::read_dir(path).into_iter().flatten().flatten())
        .map(|e| e.path())
        .collect();
    directories.extend(below.into_iter().filter(|path| path.is_dir()));
    directories.iter().filter_map(|path| fs::read_to_string(path.join(file)).ok()).map(|t| t.trim().into()).collect()
}

#[test]
fn resized_while_it_runs() {
    let (sampan, api) = instance();
    api.create_server("lab", 0.5, 64 << 20);
    let held = "dd if=/dev/zero of=/dev/shm/x bs=1M count=20 2>/dev/null; echo held; exec sleep 1000";
    api.shell_on("lab", "holder", held);
    wait_until("memory to be held", SOON, || sampan.ok(&["logs", "holder"]).contains("held"));
    let resize = |body: Value| api.ask("POST", "/v1/servers/lab/resize", Some(&body));
    let (status, view) = resize(json!({"cpus": 1.5, "memory_bytes": 96 << 20, "pids": 77}));
    assert_eq!((status, &view["cpus"], &view["pids"]), (200, &json!(1.5), &json!(77)), "{view}");
    assert_eq!(view["containers"][0]["server"]["memory_bytes"], 96 << 20);
    for (v1, v2, expected) in [
        ("cpu.cfs_quota_us", "cpu.max", ["150000", "150000 100000"]),
        ("memory.limit_in_bytes", "memory.max", ["100663296"; 2]),
        ("pids.max", "pids.max", ["77"; 2]),
    ] {
        let found = [values(&sampan, v1), values(&sampan, v2)].concat();
        assert!(found.len() >= 2 && found.iter().all(|value| expected.contains(&value.as_str())), "{v1}: {found:?}");
    }
    // refused, and nothing is changed
    let refused = api.refused("POST", "/v1/servers/lab/resize", Some(&json!({"memory_bytes": 8 << 20})), "in_use");
    assert!(refused.contains("in use") && refused.contains("8MiB"), "{refused}");
    api.refused("POST", "/v1/servers/lab/resize", Some(&json!({"cpus": 10_000})), "too_large");
    assert_eq!(api.ok("GET", "/v1/servers/lab", None)["memory_bytes"], 96 << 20);
    assert!(values(&sampan, "memory.limit_in_bytes").iter().all(|value| value == "100663296"));
    // a container that comes later has the new size too
    let (_, output) = api.run_on(&sampan, "lab", "later", "cat /sys/fs/cgroup/memory/memory.limit_in_bytes || true");
    assert!(output.is_empty() || output == "100663296", "{output}");
}

#[test]
fn a_fork_bomb_is_killed_beside_a_neighbour() {
    let (sampan, api) = instance();
    let create = json!({"name": "lab", "size": {"cpus": 0.5, "memory_bytes": 64 << 20, "pids": 200}});
    api.ok("POST", "/v1/servers", Some(&create));
    let neighbour = api.shell_on("lab", "neighbour", "exec sleep 1000");
    api.shell_on("lab", "bomb", "bomb() { bomb | bomb & }; echo lit; bomb 2>/dev/null; exec sleep 1000");
    wait_until("it to go off", SOON, || sampan.ok(&["logs", "bomb"]).contains("lit"));
    api.ok("DELETE", "/v1/containers/bomb?force=true", None);
    let lab = api.ok("GET", "/v1/servers/lab", None);
    assert_eq!(lab["containers"][0]["state"], neighbour["state"]);
    // what was lifted for it to die is limited again
    let quotas = [values(&sampan, "cpu.cfs_quota_us"), values(&sampan, "cpu.max")].concat();
    let expected = ["50000", "50000 100000"];
    assert!(quotas.len() >= 2 && quotas.iter().all(|quota| expected.contains(&quota.as_str())), "{quotas:?}");
}

#[test]
fn a_disk_for_all_on_it() {
    let (sampan, api) = instance();
    let create = |disk: Value| json!({"name": "lab", "disk": disk});
    api.refused("POST", "/v1/servers", Some(&create(json!({"size_bytes": 64 << 20}))), "no_quota");
    assert_eq!(api.ok("GET", "/v1/servers", None), json!([]));
    api.ok("POST", "/v1/servers", Some(&create(json!({"size_bytes": 64 << 20, "loop_mounted": true}))));
    api.shell_on("lab", "first", "[ -e /x ] || dd if=/dev/zero of=/x bs=1M count=30; echo wrote; exec sleep 1000");
    wait_until("the first to have written", SOON, || sampan.ok(&["logs", "first"]).contains("wrote"));
    // each would have room for itself
    let write = "df -m / | tail -1; dd if=/dev/zero of=/x bs=1M count=30 2>&1";
    let (code, output) = api.run_on(&sampan, "lab", "second", write);
    assert!(code == 1 && output.contains("No space left on device"), "{code} {output}");

    // what was written stays when everything is taken down, and when the daemon is killed
    api.ok("POST", "/v1/servers/lab/stop?timeout_ms=0", None);
    sampan.kill("daemon");
    sampan.ok(&["ps"]);
    api.ok("POST", "/v1/servers/lab/start", None);
    assert_eq!(sampan.ok(&["exec", "first", "stat", "-c", "%s", "/x"]), (30 << 20).to_string());
    // with a container goes what it wrote
    api.ok("DELETE", "/v1/containers/first?force=true", None);
    let (code, output) = api.run_on(&sampan, "lab", "third", write);
    assert_eq!(code, 0, "{output}");
    api.ok("DELETE", "/v1/servers/lab", None);
    assert_eq!(of_servers(&sampan), Vec::<String>::new());
    wait_until("no loop device to have its file", SOON, || {
        let devices = fs::read_dir("/sys/block").expect("block devices").flatten();
        let mut files = devices.filter_map(|device| fs::read_to_string(device.path().join("loop/backing_file")).ok());
        !files.any(|file| file.contains(sampan.root().to_str().expect("a path in UTF-8")))
    });
}

#[test]
fn twenty_come_and_go_at_once() {
    let (sampan, api) = instance();
    std::thread::scope(|scope| {
        for number in 0..20 {
            let (sampan, api) = (&sampan, &api);
            scope.spawn(move || {
                let name = format!("lab-{number}");
                api.create_server(&name, 0.5, 32 << 20);
                api.shell_on(&name, &format!("stays-{number}"), "exec sleep 1000");
                let (code, output) = api.run_on(sampan, &name, &format!("says-{number}"), "hostname");
                assert_eq!((code, output), (0, name.clone()));
                if number % 3 == 0 {
                    api.ok("POST", &format!("/v1/servers/{name}/stop?timeout_ms=0"), None);
                }
                if number % 2 == 0 {
                    api.ok("POST", &format!("/v1/servers/{name}/start"), None);
                }
                api.ok("DELETE", &format!("/v1/servers/{name}"), None);
            });
        }
    });
    assert_eq!(of_servers(&sampan), Vec::<String>::new());
}

/// Intends the probe as a service on the server, and waits for its deploy's end.
#[track_caller]
fn place(api: &Api, spec: &Value) -> Value {
    let name = spec["name"].as_str().expect("a name");
    let deploy = api.ok("PUT", &format!("/v1/services/{name}"), Some(spec));
    let path = format!("/v1/services/{name}/deploys/{}", deploy["version"]);
    let events = api.0.lines(&path, usize::MAX).expect("the deploy's events").body;
    let events = String::from_utf8(events).expect("text");
    serde_json::from_str(events.lines().last().expect("an event")).expect("JSON")
}

#[test]
fn a_service_on_a_server() {
    let (sampan, api) = instance();
    sampan.up(&sources::fixture("probe"), &["--name", "warm"]);
    let image = api.ok("GET", "/v1/services/warm", None)["image"].clone();
    let server = api.create_server("lab", 1.0, 256 << 20);
    let spec = |env: Value| json!({"name": "placed", "source": null, "image": image, "server": "lab", "env": env});

    let ready = place(&api, &spec(json!({})));
    assert_eq!(ready["phase"], "ready", "{ready}");
    let url = ready["url"].as_str().expect("a URL");
    assert_eq!(body_of(url), "probe one");
    let lab = api.ok("GET", "/v1/servers/lab", None);
    assert_eq!((&lab["services"], running(&lab)), (&json!(["placed"]), vec!["placed.1".into()]));
    assert_eq!(lab["containers"][0]["server"]["address"], server["address"]);

    // another service beside it: what the first listens on is not taken for its own
    let beside = json!({"name": "beside", "source": null, "image": image, "server": "lab", "env": {"PORT": "9090"}});
    let ready = place(&api, &beside);
    assert_eq!((&ready["phase"], &ready["port"]), (&json!("ready"), &json!(9090)), "{ready}");
    api.ok("DELETE", "/v1/services/beside", None);

    // another version of it: at the same address and port, so the one before goes first
    let ready = place(&api, &spec(json!({"WHICH": "two"})));
    assert_eq!(ready["phase"], "ready", "{ready}");
    assert_eq!(running(&api.ok("GET", "/v1/servers/lab", None)), ["placed.1"]);
    // one that fails: back to the version before
    let failed = place(&api, &spec(json!({"PROBE_MODE": "exit"})));
    assert_eq!(failed["phase"], "failed", "{failed}");
    assert_eq!(body_of(url), "probe one");
    let other = json!({"name": "twice", "source": null, "image": image, "server": "lab", "replicas": 2});
    let refused = api.refused("PUT", "/v1/services/twice", Some(&other), "bad_request");
    assert!(refused.contains("one address"), "{refused}");

    // stopped with its server, and back with it
    api.ok("POST", "/v1/servers/lab/stop?timeout_ms=0", None);
    let failing = wait_for("the service to say why", SOON, || {
        let view = api.ok("GET", "/v1/services/placed", None);
        view["reason"].as_str().is_some_and(|reason| reason.contains("lab\" is stopped")).then_some(view)
    });
    assert_eq!(failing["health"], "failing", "{failing}");
    api.ok("POST", "/v1/servers/lab/start", None);
    assert_eq!(body_of(url), "probe one");
    wait_until("it to be ready", SOON, || api.ok("GET", "/v1/services/placed", None)["health"] == "ready");

    // gone with it
    api.ok("DELETE", "/v1/servers/lab", None);
    assert_eq!(api.ask("GET", "/v1/services/placed", None).0, 404);
    assert_eq!(sampan.containers().len(), 1, "the other service goes on");
    api.refused("PUT", "/v1/services/placed", Some(&spec(json!({}))), "not_found");
}
