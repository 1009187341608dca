//! Several services in one file: what may stand where, and in which order they are brought up.

use std::collections::BTreeMap;

use sampan_model::Label;

use super::Manifest;

/// The most services in one file.
pub const MOST_SERVICES: usize = 64;

/// A key that is well-formed and in the wrong place, or names what is not there.
pub(super) struct Fault {
    /// In which service.
    service: Option<Label>,
    key: &'static str,
    pub(super) message: String,
}

impl Fault {
    /// The keys that lead there.
    pub(super) fn keys(&self) -> Vec<&str> {
        match &self.service {
            Some(service) => vec!["services", service.as_str(), self.key],
            None => vec![self.key],
        }
    }
}

impl Manifest {
    /// Whether it is of several services.
    pub fn is_several(&self) -> bool {
        !self.services.is_empty()
    }

    /// The services' names, each after all that it depends on; else by name.
    pub fn order(&self) -> Vec<&Label> {
        // a file with a ring was refused when it was read
        order(&self.services).unwrap_or_default()
    }

    /// These settings, and for what they leave out those of `other`.
    pub(crate) fn or(self, other: Self) -> Self {
        let mut env = other.env;
        env.extend(self.env);
        let either = |own: Vec<String>, other| if own.is_empty() { other } else { own };
        Self {
            name: self.name.or(other.name),
            bin: self.bin.or(other.bin),
            package: self.package.or(other.package),
            port: self.port.or(other.port),
            replicas: self.replicas.or(other.replicas),
            args: either(self.args, other.args),
            env,
            size: super::Size {
                cpus: self.size.cpus.or(other.size.cpus),
                memory: self.size.memory.or(other.size.memory),
            },
            health: super::Health {
                path: self.health.path.or(other.health.path),
                start_timeout: self.health.start_timeout.or(other.health.start_timeout),
            },
            build: super::Build {
                features: either(self.build.features, other.build.features),
                profile: self.build.profile.or(other.build.profile),
            },
            volumes: if self.volumes.is_empty() { other.volumes } else { self.volumes },
            path: self.path,
            depends_on: self.depends_on,
            services: BTreeMap::new(),
        }
    }

    /// What is wrong with the whole, where each key by itself is right.
    pub(super) fn fault(&self) -> Option<Fault> {
        if !self.is_several() {
            let key = self.key_of_a_service()?;
            let message = format!("`{key}` is for one of several services: say it below [services.NAME]");
            return Some(Fault { service: None, key, message });
        }
        let at_top = |key, message| Some(Fault { service: None, key, message });
        if self.services.len() > MOST_SERVICES {
            return at_top(
                "services",
                format!("there are {} services, more than {MOST_SERVICES}", self.services.len()),
            );
        }
        if let Some(key) = self.key_of_a_service().or_else(|| self.key_of_any()) {
            return at_top(key, format!("there are several services here: say `{key}` below [services.NAME] of each"));
        }
        self.services.iter().find_map(|(name, service)| self.fault_of(name, service)).or_else(|| {
            let ring = order(&self.services).err()?;
            let service = ring.first().cloned();
            let ring = ring.iter().chain(&service).map(Label::as_str).collect::<Vec<_>>().join(" -> ");
            let message = format!("these services wait for one another, so that none could be the first: {ring}");
            Some(Fault { service, key: "depends_on", message })
        })
    }

    fn fault_of(&self, name: &Label, service: &Self) -> Option<Fault> {
        let fault = |key, message| Some(Fault { service: Some(name.clone()), key, message });
        if service.is_several() {
            return fault(
                "services",
                "a service cannot be made of services: give each a [services.NAME] of its own".into(),
            );
        }
        let unknown = service.depends_on.iter().find(|other| !self.services.contains_key(other))?;
        let names = self.services.keys().map(Label::as_str).collect::<Vec<_>>().join(", ");
        fault("depends_on", format!("{name} depends on `{unknown}`, which is no service here; there is: {names}"))
    }

    /// A key that only a service of several has.
    fn key_of_a_service(&self) -> Option<&'static str> {
        match self {
            Self { path: Some(_), .. } => Some("path"),
            Self { depends_on, .. } if !depends_on.is_empty() => Some("depends_on"),
            _ => None,
        }
    }

    /// A key that each service has.
    fn key_of_any(&self) -> Option<&'static str> {
        let empty = Self::default();
        [
            ("name", self.name != empty.name),
            ("bin", self.bin != empty.bin),
            ("package", self.package != empty.package),
            ("port", self.port != empty.port),
            ("replicas", self.replicas != empty.replicas),
            ("args", self.args != empty.args),
            ("env", self.env != empty.env),
            ("size", self.size != empty.size),
            ("health", self.health != empty.health),
            ("build", self.build != empty.build),
            ("volumes", self.volumes != empty.volumes),
        ]
        .into_iter()
        .find_map(|(key, is_said)| is_said.then_some(key))
    }
}

/// The names in order, or a ring of names each of which depends on the next.
fn order(services: &BTreeMap<Label, Manifest>) -> Result<Vec<&Label>, Vec<Label>> {
    let mut ordered: Vec<&Label> = Vec::new();
    while ordered.len() < services.len() {
        let is_free = |service: &Manifest| service.depends_on.iter().all(|other| ordered.contains(&other));
        match services.iter().find(|(name, service)| !ordered.contains(name) && is_free(service)) {
            Some((name, _)) => ordered.push(name),
            None => return Err(ring(services, &ordered)),
        }
    }
    Ok(ordered)
}

/// From any service that waits, along what it waits for, until one comes again.
fn ring(services: &BTreeMap<Label, Manifest>, ordered: &[&Label]) -> Vec<Label> {
    let waits_for = |name: &Label| services[name].depends_on.iter().find(|other| !ordered.contains(other));
    let mut way: Vec<&Label> = services.keys().find(|name| !ordered.contains(name)).into_iter().collect();
    while let Some(next) = way.last().and_then(|last| waits_for(last)) {
        if let Some(at) = way.iter().position(|name| *name == next) {
            return way[at..].iter().map(|name| (*name).clone()).collect();
        }
        way.push(next);
    }
    way.into_iter().cloned().collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn parse(text: &str) -> Result<Manifest, String> {
        Manifest::parse(Path::new("sampan.toml"), text.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_depended_on_comes_first() {
        let text = "[services.a]\ndepends_on = ['c', 'b']\n[services.b]\npath = 'x'\n[services.c]\ndepends_on = ['d']\n\
                    [services.d]\nport = 80";
        let manifest = parse(text).expect("services");
        assert_eq!(manifest.order().iter().map(|name| name.as_str()).collect::<Vec<_>>(), ["b", "d", "c", "a"]);
    }

    #[test]
    fn faults_are_shown_where_they_are() {
        for (text, place, says) in [
            ("path = 'x'", "1:1", "below [services.NAME]"),
            ("depends_on = ['x']", "1:1", "below [services.NAME]"),
            ("port = 80\n[services.a]", "1:1", "say `port` below [services.NAME]"),
            ("[services.a]\n[size]\ncpus = 1", "2:2", "say `size`"),
            ("[services.a]\n[services.a.services.b]", "2:13", "made of services"),
            (
                "[services.a]\ndepends_on = ['bb']\n[services.b]",
                "2:1",
                "a depends on `bb`, which is no service here; there is: a, b",
            ),
            ("[services.a]\ndepends_on = ['a']", "2:1", "none could be the first: a -> a"),
            (
                "[services.a]\ndepends_on = ['b']\n[services.b]\ndepends_on = ['c']\n[services.c]\ndepends_on = ['b']",
                "4:1",
                "none could be the first: b -> c -> b",
            ),
            ("[services.a]\nprot = 80", "2:1", "did you mean `port`?"),
            ("[services.A]", "1:", "lower-case"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.starts_with(&format!("sampan.toml:{place}")), "{text:?} gave\n{error}");
            assert!(error.contains(says), "{text:?} gave\n{error}");
        }
        let many: String = (0..65).map(|number| format!("[services.s{number}]\n")).collect();
        assert!(parse(&many).expect_err("too many").contains("more than 64"));
    }

    #[test]
    fn a_service_says_more_than_its_directory() {
        let own = parse("port = 1\n[env]\nA = 'own'\n[size]\ncpus = 2").expect("own");
        let inner =
            parse("port = 2\nname = 'inner'\n[env]\nA = 'inner'\nB = 'inner'\n[size]\nmemory = '1GiB'").expect("inner");
        let merged = own.or(inner);
        assert_eq!((merged.port.map(u16::from), merged.name.as_ref().map(Label::as_str)), (Some(1), Some("inner")));
        assert_eq!((merged.env["A"].as_str(), merged.env["B"].as_str()), ("own", "inner"));
        assert!(merged.size.cpus.is_some() && merged.size.memory.is_some());
    }
}
