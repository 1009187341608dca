//! A network as it is used: in namespaces of its own, with real connections. Needs root. The machine's own interfaces,
//! rules and settings are never touched: a [`World`] has a namespace that plays the host and one that plays the outside.

#![forbid(unsafe_code)]

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use sampan_model::Instance;
use sampan_network::{Network, Wired, listening};
use sampan_sys::net::namespace::{fresh, run_in};
use sampan_sys::net::netlink::{Message, Protocol, Socket};
use sampan_sys::net::nftables::{Family, Table, Transaction, chains};
use sampan_sys::net::rtnetlink::{
    LOOPBACK, Route, Veth, Via, add_address, add_route, addresses, create_veth, delete_link, delete_route,
    destinations, link, link_up, links, no_ipv6_address,
};

/// What must not answer is waited for so long.
const SILENCE: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(5);
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const UPLINK: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// A host with an uplink to an outside.
struct World {
    host: OwnedFd,
    outside: OwnedFd,
}

impl World {
    fn new() -> Self {
        let world = Self { host: fresh().expect("namespace (as root)"), outside: fresh().expect("namespace") };
        let veth = Veth {
            name: "uplink",
            index: 50,
            mac: [2, 0, 0, 0, 0, 1],
            group: 0,
            peer_name: "eth0",
            peer_index: 51,
            peer_mac: [2, 0, 0, 0, 0, 2],
            peer_netns: world.outside.as_fd(),
        };
        world.on_host(|| {
            // a namespace starts with the machine's settings, whatever these are; and "loose" for all would overrule
            // a server's "strict"
            for setting in ["ip_forward", "conf/all/rp_filter"] {
                fs::write(format!("/proc/sys/net/ipv4/{setting}"), "0").expect("set");
            }
            let uplink = [create_veth(&veth), no_ipv6_address(50), link_up(50), add_address(50, UPLINK, 24)];
            let mut socket = Socket::open(Protocol::Route).expect("socket");
            socket.all(&[link_up(LOOPBACK)]).and_then(|()| socket.all(&uplink)).expect("uplink");
        });
        world.outside(|| {
            // strangers who try their luck: the blocks are behind the host
            let blocks = Route {
                network: Ipv4Addr::new(10, 192, 0, 0),
                prefix: 10,
                via: Via::Gateway(UPLINK, 51),
                source: None,
            };
            let made = [link_up(LOOPBACK), link_up(51), add_address(51, OUTSIDE, 24), add_route(&blocks)];
            Socket::open(Protocol::Route).expect("socket").all(&made).expect("outside");
        });
        world
    }

    fn on_host<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        run_in(self.host.as_fd(), work).expect("enter")
    }

    fn outside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        run_in(self.outside.as_fd(), work).expect("enter")
    }

    fn open(&self, instance: &Instance) -> Network {
        self.on_host(|| Network::open(instance, None, &[])).expect("open")
    }

    /// Everything on the host that a network could leave behind.
    fn state(&self) -> String {
        self.on_host(|| {
            let mut socket = Socket::open(Protocol::Route).expect("socket");
            let mut rules = Socket::open(Protocol::Netfilter).expect("socket");
            let mut settings = String::new();
            for tree in ["/proc/sys/net/ipv4", "/proc/sys/net/ipv6"] {
                read_settings(Path::new(tree), &mut settings);
            }
            let neighbours = fs::read_to_string("/proc/thread-self/net/arp").expect("neighbours");
            // the uplink's come and go by themselves
            let neighbours: String = neighbours.lines().filter(|line| !line.ends_with("uplink")).collect();
            format!(
                "{:#?}\n{:#?}\n{:#?}\n{:#?}\n{neighbours}\n{settings}",
                links(&mut socket).expect("links"),
                addresses(&mut socket).expect("addresses"),
                destinations(&mut socket).expect("routes"),
                chains(&mut rules).expect("chains"),
            )
        })
    }

    fn assert_state(&self, expected: &str) {
        let state = self.state();
        assert!(state == expected, "{}", differences(expected, &state));
    }
}

/// The lines that differ, in short.
fn differences(before: &str, after: &str) -> String {
    let lines = |text: &'static str, a: &str, b: &str| {
        let b: Vec<_> = b.lines().collect();
        a.lines().filter(|line| !b.contains(line)).map(|line| format!("{text} {line}\n")).collect::<String>()
    };
    lines("-", before, after) + &lines("+", after, before)
}

fn read_settings(directory: &Path, into: &mut String) {
    let mut entries: Vec<_> = fs::read_dir(directory).expect("settings").map(|e| e.expect("entry").path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            read_settings(&path, into);
        } else if let Ok(value) = fs::read_to_string(&path) {
            into.push_str(&format!("{} = {}\n", path.display(), value.trim()));
        }
    }
}

/// A name that no other test uses.
fn instance() -> Instance {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    Instance::of_root(Path::new(&format!("/test/{}/{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))))
}

struct Server {
    netns: OwnedFd,
    wired: Wired,
}

impl Server {
    fn attach(network: &Network, index: u32) -> Self {
        let netns = fresh().expect("namespace");
        let wired = network.attach(index, netns.as_fd()).expect("attach");
        Self { netns, wired }
    }

    fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        run_in(self.netns.as_fd(), work).expect("enter")
    }

    /// Listens inside and tells each who calls, from where, as long as it writes.
    fn listen(&self, ip: Ipv4Addr, port: u16) {
        tell_callers(self.inside(|| TcpListener::bind((ip, port))).expect("listen"));
    }
}

/// Answers every byte of every connection with the caller's address, in the background.
fn tell_callers(listener: TcpListener) {
    thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.expect("connection");
            thread::spawn(move || {
                let caller = connection.peer_addr().expect("caller").ip().to_string();
                while connection.read_exact(&mut [0]).is_ok() {
                    connection.write_all(format!("{caller}\n").as_bytes()).expect("answer");
                }
            });
        }
    });
}

/// Who we are for the one who listens there.
fn ask(address: impl Into<IpAddr>, port: u16, timeout: Duration) -> io::Result<String> {
    let mut connection = TcpStream::connect_timeout(&SocketAddr::new(address.into(), port), timeout)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.write_all(b"?")?;
    connection.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    Ok(answer.trim().into())
}

#[test]
fn host_and_servers_reach_each_other_and_nobody_else_does() {
    let world = World::new();
    let network = world.open(&instance());
    let (one, two) = (Server::attach(&network, 0), Server::attach(&network, 1));
    for server in [&one, &two] {
        server.listen(Ipv4Addr::UNSPECIFIED, 8080);
    }
    tell_callers(world.outside(|| TcpListener::bind((OUTSIDE, 80))).expect("listen"));
    tell_callers(world.on_host(|| TcpListener::bind("0.0.0.0:90")).expect("listen"));

    // the host reaches servers, from the gateway; the first packet is not lost
    let started = Instant::now();
    let gateway = network.gateway().to_string();
    assert_eq!(world.on_host(|| ask(one.wired.address, 8080, PATIENCE)).expect("host to server"), gateway);
    assert_eq!(world.on_host(|| ask(two.wired.address, 8080, PATIENCE)).expect("host to server"), gateway);
    assert!(started.elapsed() < Duration::from_millis(900), "{:?}", started.elapsed());

    // servers reach the outside as the host, and the host as themselves
    assert_eq!(one.inside(|| ask(OUTSIDE, 80, PATIENCE)).expect("server to outside"), UPLINK.to_string());
    let own = one.wired.address.to_string();
    assert_eq!(one.inside(|| ask(network.gateway(), 90, PATIENCE)).expect("server to host"), own);

    // but not one another, and the outside not them
    one.inside(|| ask(two.wired.address, 8080, SILENCE)).expect_err("server to server");
    world.outside(|| ask(one.wired.address, 8080, SILENCE)).expect_err("outside to server");
    world.on_host(|| ask(network.block().server_address(7), 8080, PATIENCE)).expect_err("nobody has it");

    // nor does the host hear one under another's address
    let ear = world.on_host(|| UdpSocket::bind((network.gateway(), 91))).expect("bind");
    let own_mouth = two.inside(|| UdpSocket::bind((two.wired.address, 0))).expect("bind");
    let stolen_mouth = two.inside(|| {
        let mut socket = Socket::open(Protocol::Route).expect("socket");
        let eth0 = link(&mut socket, "eth0").expect("eth0").index;
        socket.all(&[add_address(eth0, one.wired.address, 32)]).expect("steal");
        UdpSocket::bind((one.wired.address, 0)).expect("bind")
    });
    for mouth in [&stolen_mouth, &own_mouth] {
        mouth.send_to(b"hear me", (network.gateway(), 91)).expect("send");
    }
    let (_, heard) = ear.recv_from(&mut [0; 16]).expect("hear");
    assert_eq!(heard.ip(), IpAddr::from(two.wired.address));
    assert!(network.close().is_empty());
}

#[test]
fn the_name_service_answers_on_the_sockets_that_are_handed_out() {
    let world = World::new();
    let network = world.open(&instance());
    let server = Server::attach(&network, 3);
    let udp = UdpSocket::from(server.wired.dns_udp.try_clone().expect("clone"));
    let tcp = TcpListener::from(server.wired.dns_tcp.try_clone().expect("clone"));
    assert_eq!(udp.recv_from(&mut [0; 8]).expect_err("non-blocking").kind(), io::ErrorKind::WouldBlock);
    assert_eq!(tcp.accept().expect_err("non-blocking").kind(), io::ErrorKind::WouldBlock);
    udp.set_nonblocking(false).expect("blocking");
    tcp.set_nonblocking(false).expect("blocking");
    tell_callers(tcp);

    let asker = server.inside(|| UdpSocket::bind("127.0.0.1:0")).expect("bind");
    asker.send_to(b"name?", "127.0.0.11:53").expect("ask");
    let (length, from) = udp.recv_from(&mut [0; 16]).expect("question");
    udp.send_to(b"address", from).expect("answer");
    asker.set_read_timeout(Some(PATIENCE)).expect("timeout");
    let (_, answered_by) = asker.recv_from(&mut [0; 16]).expect("answer");
    assert_eq!((length, answered_by.to_string()), (5, "127.0.0.11:53".to_owned()));
    assert_eq!(server.inside(|| ask([127, 0, 0, 11], 53, PATIENCE)).expect("TCP"), "127.0.0.1");
    // an app may use the port on its own address
    server.listen(server.wired.address, 53);
    assert!(network.close().is_empty());
}

#[test]
fn what_listens_on_loopback_only_is_reached_by_the_host_alone() {
    let world = World::new();
    let network = world.open(&instance());
    let (server, neighbour) = (Server::attach(&network, 0), Server::attach(&network, 1));
    server.listen(Ipv4Addr::LOCALHOST, 8080);
    let address = server.wired.address;
    world.on_host(|| ask(address, 8080, SILENCE)).expect_err("not yet");
    for _ in 0..2 {
        network.reach_loopback(server.netns.as_fd(), address, 8080).expect("reach");
    }
    for _ in 0..5 {
        assert_eq!(world.on_host(|| ask(address, 8080, PATIENCE)).expect("reached"), network.gateway().to_string());
    }
    // one connection, many questions
    let mut kept = world.on_host(|| TcpStream::connect((address, 8080))).expect("connect");
    for _ in 0..50 {
        kept.write_all(b"?").expect("ask");
        let mut answer = vec![0; network.gateway().to_string().len() + 1];
        kept.read_exact(&mut answer).expect("answer");
    }
    neighbour.inside(|| ask(address, 8080, SILENCE)).expect_err("a neighbour");
    world.outside(|| ask(address, 8080, SILENCE)).expect_err("the outside");
    // from inside nothing has changed
    assert_eq!(server.inside(|| ask(Ipv4Addr::LOCALHOST, 8080, PATIENCE)).expect("itself"), "127.0.0.1");
    assert!(network.close().is_empty());
}

#[test]
fn closing_leaves_the_host_as_it_was() {
    let world = World::new();
    let before = world.state();
    let network = world.open(&instance());
    let servers: Vec<_> = (0..4).map(|index| Server::attach(&network, index)).collect();
    network.reach_loopback(servers[0].netns.as_fd(), servers[0].wired.address, 8080).expect("reach");
    assert_eq!(network.attached().expect("list"), [0, 1, 2, 3]);
    network.detach(2).expect("detach");
    network.detach(2).expect("detach what is not there");
    assert_eq!(network.attached().expect("list"), [0, 1, 3]);
    let during = world.state();
    assert!(during.contains("/proc/sys/net/ipv4/ip_forward = 1"));
    // no address but the gateway's
    assert!(!during.contains("fe80"), "{during}");
    for _ in 0..2 {
        let failures = network.close();
        assert!(failures.is_empty(), "{failures:?}");
    }
    world.assert_state(&before);
}

#[test]
fn settings_that_forwarding_flips_along_are_restored() {
    let world = World::new();
    let redirects = "/proc/sys/net/ipv4/conf/all/accept_redirects";
    world.on_host(|| fs::write(redirects, "0")).expect("set");
    let before = world.state();
    let network = world.open(&instance());
    assert!(network.close().is_empty());
    world.assert_state(&before);
    // forwarding that was on stays on
    world.on_host(|| fs::write("/proc/sys/net/ipv4/ip_forward", "1")).expect("set");
    assert!(world.open(&instance()).close().is_empty());
    assert!(world.state().contains("ip_forward = 1"));
}

#[test]
fn opening_again_finds_everything_and_disturbs_nobody() {
    let world = World::new();
    let before = world.state();
    let instance = instance();
    let network = world.open(&instance);
    let server = Server::attach(&network, 0);
    tell_callers(world.outside(|| TcpListener::bind((OUTSIDE, 80))).expect("listen"));
    server.listen(Ipv4Addr::UNSPECIFIED, 8080);
    let mut outward = server.inside(|| TcpStream::connect((OUTSIDE, 80))).expect("connect");
    let mut inward = world.on_host(|| TcpStream::connect((server.wired.address, 8080))).expect("connect");
    let mut talk = || {
        for connection in [&mut outward, &mut inward] {
            connection.set_read_timeout(Some(PATIENCE)).expect("timeout");
            connection.write_all(b"?").expect("ask");
            while connection.read_exact(&mut [0]).is_ok() {
                let mut more = [0; 1];
                if connection.peek(&mut more).is_ok_and(|n| n > 0 && more == *b"\n") {
                    connection.read_exact(&mut more).expect("end of line");
                    break;
                }
            }
        }
    };
    talk();
    let (block, during) = (network.block(), world.state());
    // another opinion of what the block should be changes nothing, nor does its gateway as a name server
    let preferred = Some(sampan_model::instance::Block(block.0 + 1));
    let again = world
        .on_host(|| Network::open(&instance, preferred, &[block.gateway().into()]))
        .expect("open again, while the first is there");
    assert_eq!((again.block(), again.attached().expect("list")), (block, vec![0]));
    talk();
    drop(network);
    world.assert_state(&during);

    // somebody flushed the firewall
    world.on_host(|| {
        let table = instance.table_name();
        let change = Transaction::new().delete_table(Table { family: Family::Inet, name: &table });
        change.commit(&mut Socket::open(Protocol::Netfilter).expect("socket")).expect("flush");
    });
    let repaired = world.open(&instance);
    assert_eq!(repaired.block(), block);
    // (connections to the outside did not survive that: their packets left under the server's own address meanwhile)
    assert_eq!(server.inside(|| ask(OUTSIDE, 80, PATIENCE)).expect("out again"), UPLINK.to_string());
    // forwarding cannot be known to have been off before
    assert!(repaired.close().is_empty());
    world.on_host(|| fs::write("/proc/sys/net/ipv4/ip_forward", "0")).expect("restore");
    world.assert_state(&before);
}

#[test]
fn whatever_is_missing_is_made_again() {
    let world = World::new();
    let before = world.state();
    let instance = instance();
    let first = world.open(&instance);
    let whole = world.state();
    let table = instance.table_name();
    let table = Table { family: Family::Inet, name: &table };
    let unreachable = Route { network: first.block().network(), prefix: 20, via: Via::Unreachable, source: None };
    let route = |message: Message| Socket::open(Protocol::Route).expect("socket").all(&[message]).expect("remove");
    let missing: [&(dyn Fn() + Sync); 3] = [
        // killed after the claim
        &|| route(delete_link(&instance.gateway_interface())),
        &|| route(delete_route(&unreachable)),
        // the gateway made, the rules flushed
        &|| {
            let change = Transaction::new().delete_table(table);
            change.commit(&mut Socket::open(Protocol::Netfilter).expect("socket")).expect("flush");
            fs::write("/proc/sys/net/ipv4/ip_forward", "0").expect("switch off");
        },
    ];
    for remove in missing {
        world.on_host(remove);
        assert_ne!(world.state(), whole);
        assert_eq!(world.open(&instance).block(), first.block());
        // indexes are counted up
        let digits = |state: &str| state.replace(|c: char| c.is_ascii_digit(), "");
        assert_eq!(digits(&world.state()), digits(&whole));
    }
    assert!(first.close().is_empty());
    world.assert_state(&before);
}

#[test]
fn instances_side_by_side_keep_apart() {
    let world = World::new();
    let before = world.state();
    let instances: Vec<_> = (0..6).map(|_| instance()).collect();
    let networks: Vec<_> = thread::scope(|scope| {
        let opening: Vec<_> = instances.iter().map(|instance| scope.spawn(|| world.open(instance))).collect();
        opening.into_iter().map(|thread| thread.join().expect("open")).collect()
    });
    let mut blocks: Vec<_> = networks.iter().map(|network| network.block().0).collect();
    blocks.sort_unstable();
    blocks.dedup();
    assert_eq!(blocks.len(), networks.len());

    let (one, two) = (Server::attach(&networks[0], 0), Server::attach(&networks[1], 0));
    for server in [&one, &two] {
        server.listen(Ipv4Addr::UNSPECIFIED, 8080);
    }
    one.inside(|| ask(two.wired.address, 8080, SILENCE)).expect_err("across instances");
    assert!(networks[0].close().is_empty());
    // forwarding stays for the others
    tell_callers(world.outside(|| TcpListener::bind((OUTSIDE, 80))).expect("listen"));
    assert_eq!(two.inside(|| ask(OUTSIDE, 80, PATIENCE)).expect("still out"), UPLINK.to_string());
    thread::scope(|scope| {
        for network in &networks[1..] {
            scope.spawn(|| assert!(network.close().is_empty()));
        }
    });
    world.assert_state(&before);
}

#[test]
fn eight_at_once_and_then_their_figures() {
    let world = World::new();
    let network = world.open(&instance());
    let crowded = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for thread in 0..8 {
            let (network, world, crowded) = (&network, &world, &crowded);
            scope.spawn(move || {
                for round in 0..8 {
                    let netns = fresh().expect("namespace");
                    let started = Instant::now();
                    let wired = network.attach(thread * 100 + round, netns.as_fd()).expect("attach");
                    crowded.lock().expect("times").push(started.elapsed());
                    let server = Server { netns, wired };
                    server.listen(Ipv4Addr::UNSPECIFIED, 8080);
                    world.on_host(|| ask(server.wired.address, 8080, PATIENCE)).expect("reached");
                    network.detach(thread * 100 + round).expect("detach");
                }
            });
        }
    });
    assert_eq!(network.attached().expect("list"), [0; 0]);

    let mut times = [Vec::new(), Vec::new(), crowded.into_inner().expect("times")];
    for index in 0..100 {
        let netns = fresh().expect("namespace");
        let started = Instant::now();
        let wired = network.attach(index, netns.as_fd()).expect("attach");
        times[0].push(started.elapsed());
        let started = Instant::now();
        network.detach(index).expect("detach");
        times[1].push(started.elapsed());
        drop(wired);
    }
    for (what, times) in ["attach", "detach", "attach among 8 that attach and detach"].into_iter().zip(&mut times) {
        times.sort_unstable();
        println!("{what}: median {:?}, 99 % {:?}", times[times.len() / 2], times[times.len() * 99 / 100]);
    }
    assert!(network.close().is_empty());
}

#[test]
fn a_failed_attach_leaves_nothing_and_an_index_is_taken_over() {
    let world = World::new();
    let network = world.open(&instance());
    let with_network = world.state();
    // a name service is there already: the last step fails
    let netns = fresh().expect("namespace");
    let in_the_way = run_in(netns.as_fd(), || {
        Socket::open(Protocol::Route).expect("socket").all(&[link_up(LOOPBACK)]).expect("lo");
        TcpListener::bind("127.0.0.11:53")
    });
    let in_the_way = in_the_way.expect("enter").expect("listen");
    let error = network.attach(5, netns.as_fd()).expect_err("port 53 is taken");
    assert_eq!(error.to_string(), "listen on 127.0.0.11:53 of server 5");
    world.assert_state(&with_network);
    drop(in_the_way);
    let first = network.attach(5, netns.as_fd()).expect("attach");
    network.name_service(5, netns.as_fd()).expect_err("its sockets are open");
    drop(first);
    network.name_service(5, netns.as_fd()).expect("new sockets");
    // what held the index before is cut off
    let second = Server::attach(&network, 5);
    second.listen(Ipv4Addr::UNSPECIFIED, 8080);
    assert_eq!(network.attached().expect("list"), [5]);
    world.on_host(|| ask(second.wired.address, 8080, PATIENCE)).expect("the second is reached");
    let not_a_namespace = fs::File::open("/dev/null").expect("open");
    network.attach(6, not_a_namespace.as_fd()).expect_err("no namespace");
    network.attach(4093, netns.as_fd()).expect_err("no address");
    assert_eq!(network.attached().expect("list"), [5]);
    assert!(network.close().is_empty());
}

/// A network namespace as servers have them, owned by a user namespace of its own, and the process that holds it: it
/// lives for as long as its input is open.
fn sealed_process() -> (Child, OwnedFd) {
    let mut process = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "sh", "-c", "echo ready; exec cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("unshare");
    process.stdout.as_mut().expect("piped").read_exact(&mut [0; 6]).expect("ready");
    let netns = fs::File::open(format!("/proc/{}/ns/net", process.id())).expect("namespace");
    (process, netns.into())
}

#[test]
fn a_namespace_of_another_user_namespace_is_wired_and_its_sockets_are_listed() {
    let world = World::new();
    let network = world.open(&instance());
    let (mut process, netns) = sealed_process();
    let wired = network.attach(0, netns.as_fd()).expect("attach");
    let server = Server { netns, wired };
    assert_eq!(listening::of_process(process.id()).expect("list"), []);
    server.listen(Ipv4Addr::LOCALHOST, 8080);
    network.reach_loopback(server.netns.as_fd(), server.wired.address, 8080).expect("reach");
    assert_eq!(
        world.on_host(|| ask(server.wired.address, 8080, PATIENCE)).expect("ask"),
        network.gateway().to_string()
    );
    let found = listening::of_process(process.id()).expect("list");
    drop(process.stdin.take());
    process.wait().expect("end");
    let found: Vec<_> = found.iter().map(|l| SocketAddr::new(l.ip, l.port).to_string()).collect();
    assert_eq!(found, ["127.0.0.1:8080"]);
    listening::of_process(process.id()).expect_err("it is no more");
    assert!(network.close().is_empty());
}
