//! The example catalog, as `callboard demo` publishes it: the files of deploy/local/example, in this program.

/// A platform that sells ferry crossings: each file's path and text.
pub const FILES: [(&str, &str); 11] = [
    (
        "example/organisation/catalog-info.yaml",
        include_str!("../../../deploy/local/example/organisation/catalog-info.yaml"),
    ),
    ("example/landscape/catalog-info.yaml", include_str!("../../../deploy/local/example/landscape/catalog-info.yaml")),
    ("example/boarding/catalog-info.yaml", include_str!("../../../deploy/local/example/boarding/catalog-info.yaml")),
    ("example/booking/catalog-info.yaml", include_str!("../../../deploy/local/example/booking/catalog-info.yaml")),
    ("example/insight/catalog-info.yaml", include_str!("../../../deploy/local/example/insight/catalog-info.yaml")),
    (
        "example/notifications/catalog-info.yaml",
        include_str!("../../../deploy/local/example/notifications/catalog-info.yaml"),
    ),
    ("example/payments/catalog-info.yaml", include_str!("../../../deploy/local/example/payments/catalog-info.yaml")),
    ("example/platform/catalog-info.yaml", include_str!("../../../deploy/local/example/platform/catalog-info.yaml")),
    ("example/pricing/catalog-info.yaml", include_str!("../../../deploy/local/example/pricing/catalog-info.yaml")),
    ("example/sailings/catalog-info.yaml", include_str!("../../../deploy/local/example/sailings/catalog-info.yaml")),
    ("example/website/catalog-info.yaml", include_str!("../../../deploy/local/example/website/catalog-info.yaml")),
];

#[cfg(test)]
mod tests {
    use crate::input::{Source, check};
    use catalog::process::Model;
    use std::path::Path;

    #[test]
    fn every_file_of_the_example_is_here_and_good() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/local/example");
        let files = std::fs::read_dir(directory).unwrap().count();
        assert_eq!(super::FILES.len(), files);
        let model = Model::builtin();
        for (name, text) in super::FILES {
            let source = Source { name: name.to_owned(), text: text.to_owned() };
            let (good, bad) = check(&source, &model, "catalog.events.example");
            assert!(bad.is_empty() && !good.is_empty(), "{name}: {bad:?}");
        }
    }
}
