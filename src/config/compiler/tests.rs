//! The compiler through its front door: files and environment in, specs out.

use super::*;
use crate::config::process::{ProcessFlags, load_process};

/// A tree in memory, in a folder that exists.
struct Case {
    folder: tempfile::TempDir,
    files: BTreeMap<String, String>,
    environment: Vec<(String, String)>,
    flags: ProcessFlags,
}

impl Case {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("folder"),
            files: BTreeMap::new(),
            environment: Vec::new(),
            flags: ProcessFlags::default(),
        }
    }

    fn file(mut self, name: &str, text: &str) -> Self {
        self.files.insert(name.to_owned(), text.to_owned());
        self
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    fn tree(&self) -> Tree {
        let root = self.folder.path().join("services");
        let files = self
            .files
            .iter()
            .map(|(key, text)| {
                let (domain, name) = key.split_once('/').expect("domain/name");
                let folder = root.join(domain).join(name);
                std::fs::create_dir_all(&folder).expect("folder");
                TreeFile {
                    name: ServiceName::new(domain, name).expect("name"),
                    path: folder.join("service.config.yaml"),
                    shown: PathBuf::from(format!("services/{key}/service.config.yaml")),
                    folder,
                    content: FileContent::Bytes(Arc::from(text.as_bytes())),
                }
            })
            .collect();
        Tree {
            root,
            files,
            problems: Vec::new(),
        }
    }

    fn compiler(&self) -> Compiler {
        let environment = Environment::from_pairs(self.environment.clone());
        let process = load_process(&self.flags, &environment).expect("settings");
        Compiler::new(process, environment)
    }

    fn compile(&self) -> Compilation {
        self.compiler().compile(&self.tree())
    }

    /// Every problem as it is printed.
    fn problems(&self) -> String {
        texts(&self.compile())
    }
}

fn texts(compilation: &Compilation) -> String {
    let texts: Vec<String> = compilation
        .problems
        .iter()
        .map(Problem::to_string)
        .collect();
    texts.join("\n")
}

fn one(text: &str) -> Case {
    Case::new().file("shop/cart", text)
}

fn spec(compilation: &Compilation, name: &str) -> Arc<ServiceSpec> {
    let found = compilation
        .services
        .iter()
        .find(|(key, _)| key.key() == name)
        .map(|(_, compiled)| compiled);
    match found {
        Some(Compiled::Local(LocalService { spec: Ok(spec), .. })) => Arc::clone(spec),
        other => panic!("{name}: {other:?}\n{}", texts(compilation)),
    }
}

#[test]
fn smoke() {
    let compiled = one("port: 3001\nupstream: 8080\nauth: none\n").compile();
    assert_eq!(texts(&compiled), "");
    assert_eq!(spec(&compiled, "shop/cart").port, 3001);
}

#[test]
fn the_framework_files_compile_unchanged() {
    let case = Case::new()
        .file("ecommerce/users", r#"{"name":"users","version":"1.0.0","port":3001,"domain":"ecommerce","description":"User management","dependencies":[],"healthCheck":"/health","database":{"isolation":"shared","migrations":true},"auth":{"strategy":"api-key"},"tracing":{"enabled":true,"samplingRate":1.0}}"#)
        .file("ecommerce/orders", r#"{"name":"orders","version":"1.0.0","port":3002,"domain":"ecommerce","description":"Orders","dependencies":["users","payments"],"healthCheck":"/health","database":{"isolation":"shared","migrations":true},"auth":{"strategy":"jwt"},"tracing":{"enabled":true,"samplingRate":0.5}}"#)
        .file("ecommerce/payments", r#"{"name":"payments","version":"1.0.0","port":3003,"domain":"ecommerce","description":"Payments","dependencies":["orders"],"healthCheck":"/health","database":{"isolation":"isolated","migrations":true},"auth":{"strategy":"none"},"tracing":{"enabled":true,"samplingRate":0.1}}"#)
        .env("MICROSERVICES", "true")
        .env("SERVICES", "users,orders,payments")
        .env("SERVICE_API_KEY", "k3y-k3y-k3y-k3y-k3y-k3y-k3y")
        .env("SERVICE_JWT_SECRET", "s3cret-s3cret-s3cret-s3cret-s3cret")
        .env("MICROSERVICES_TRACING", "true")
        .env("MICROSERVICES_TRACING_RATE", "50")
        .env("DATABASE_ISOLATION", "shared")
        .env("POSTGRES_HOST", "localhost")
        .env("POSTGRES_DB", "zintrust")
        .env("POSTGRES_USER", "postgres")
        .env("POSTGRES_PASSWORD", "swordfish")
        .env("POSTGRES_PORT", "tcp://10.0.0.1:5432");
    assert_eq!(case.problems(), "");
}

/// The files that `examples` name.
fn with_files(case: &Case) {
    let folder = case.folder.path().join("services/shop/cart");
    std::fs::create_dir_all(&folder).expect("folder");
    for name in ["cert.pem", "key.pem", "ca.pem"] {
        std::fs::write(folder.join(name), "-----BEGIN").expect("file");
    }
    std::fs::write(folder.join("web.sha256"), "ab".repeat(32) + "\n").expect("file");
}

fn example(text: &str) -> Case {
    let case = one(text)
        .file("shop/payments", "port: 3009\nauth: none\n")
        .env("SERVICE_JWT_SECRET", "s3cret-s3cret-s3cret-s3cret-s3cret")
        .env("SERVICE_API_KEY", "k3y-k3y-k3y-k3y-k3y-k3y-k3y")
        .env("JWT_SECRET", "s3cret-s3cret-s3cret-s3cret-s3cret")
        .env("OPS_KEY", "0ps-0ps-0ps-0ps-0ps-0ps-0ps")
        .env("DATABASE_URL", "postgres://a:swordfish@localhost/base")
        .env("POSTGRES_PASSWORD", "swordfish");
    with_files(&case);
    case
}

#[test]
fn every_example_compiles_without_a_word() {
    for text in crate::config::examples::SERVICES {
        let compiled = example(text).compile();
        assert_eq!(texts(&compiled), "", "{text}");
        spec(&compiled, "shop/cart");
    }
}

#[test]
fn the_process_example_loads() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("outrigger.yaml");
    std::fs::write(&path, crate::config::examples::PROCESS).expect("file");
    let flags = ProcessFlags {
        config: Some(path),
        ..ProcessFlags::default()
    };
    let environment =
        Environment::from_pairs([("TOKEN", "swordfish-swordfish-swordfish-swordfish")]);
    let loaded = load_process(&flags, &environment).expect("settings");
    assert_eq!(loaded.warnings, []);
    assert!(!format!("{loaded:?}").contains("swordfish"));
}

/// What a policy asks of a GET of a path: rules as `auth` applies them.
fn asked(policy: &crate::model::AuthPolicy, path: &str) -> crate::model::Requirement {
    use crate::model::{Deny, Requirement, Segment, Strategy};
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let fits = |glob: &crate::model::PathGlob| {
        let mut rest = parts.as_slice();
        for segment in &glob.segments {
            match (segment, rest.split_first()) {
                (Segment::Rest, _) => return true,
                (Segment::One, Some((_, after))) => rest = after,
                (Segment::Literal(text), Some((first, after))) if **text == **first => rest = after,
                _ => return false,
            }
        }
        rest.is_empty()
    };
    for rule in &policy.rules {
        let by_path = rule.paths.is_empty() || rule.paths.iter().any(fits);
        let by_method = rule.methods.is_empty() || rule.methods.iter().any(|one| &**one == "GET");
        if by_path && by_method {
            if rule.deny == Deny::Everyone {
                return Requirement::AnyOf(vec![Strategy::Mtls]);
            }
            return rule
                .requirement
                .clone()
                .unwrap_or_else(|| policy.requirement.clone());
        }
    }
    policy.requirement.clone()
}

/// Files are cut off where a writer was stopped. A prefix fails, or says
/// nothing of authentication (which the control loop refuses where something
/// was said before), or opens no path that the whole does not open.
#[test]
fn no_prefix_of_an_example_is_weaker() {
    use crate::model::Requirement;
    let paths = [
        "/",
        "/x",
        "/public/a",
        "/assets/a/logo",
        "/assets/a",
        "/admin/a",
        "/both",
        "/oauth2/a",
        "/p",
        "/pub",
        "/a",
        "/in",
        "/internal/x",
    ];
    for text in crate::config::examples::SERVICES {
        let mut case = example(text);
        let whole = spec(&case.compile(), "shop/cart");
        let mut compiler = case.compiler();
        for end in (0..text.len()).filter(|end| text.is_char_boundary(*end)) {
            let prefix = text.get(..end).expect("a boundary");
            case.files.insert("shop/cart".to_owned(), prefix.to_owned());
            let compiled = compiler.compile(&case.tree());
            let Some((_, Compiled::Local(LocalService { spec: Ok(cut), .. }))) = compiled
                .services
                .iter()
                .find(|(name, _)| name.key() == "shop/cart")
            else {
                continue;
            };
            if !cut.auth.explicit {
                continue;
            }
            for path in paths {
                let was_open = asked(&whole.auth, path) == Requirement::None;
                let is_open = asked(&cut.auth, path) == Requirement::None;
                assert!(was_open || !is_open, "{path} is open in:\n{prefix}");
            }
        }
    }
}
