//! The compiler through its front door: files and environment in, specs out.

mod database;
mod memory;
mod neighbours;
mod problems;
mod references;
mod truncation;

use super::*;
use crate::config::process::{ProcessFlags, load_process};
use crate::model::ServiceSpec;

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
        let folder = self.folder.path().to_string_lossy();
        texts(&self.compile()).replace(&*folder, "FOLDER")
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
        .file(
            "shop/payments",
            "port: 3009\nauth: none\ndatabase: {host: db.internal, database: shop, user: a, sharesWith: [cart]}\n",
        )
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
