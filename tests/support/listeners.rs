//! Listeners that Envoy takes from a file, and replaces when the file changes.

use anyhow::Context as _;
use harness::envoy::Envoy;
use serde_json::{Value, json};

/// The folder of the file that an Envoy watches.
pub struct Watched(tempfile::TempDir);

impl Watched {
    /// Runs Envoy with a configuration whose one listener, on this port, is in a file of its own.
    ///
    /// # Errors
    /// When Envoy does not start.
    pub async fn start(
        config: &Value,
        (name, port): (&str, u16),
        arguments: &[&str],
    ) -> anyhow::Result<(Self, Envoy)> {
        let watched = Self(tempfile::tempdir()?);
        watched.publish(0, config)?;
        let mut dynamic = config.clone();
        let fields = dynamic.as_object_mut().context("no configuration")?;
        let statics = fields.get_mut("static_resources").and_then(Value::as_object_mut);
        statics.context("no static_resources")?.insert("listeners".to_owned(), json!([]));
        fields.insert("node".to_owned(), json!({ "id": "test", "cluster": "test" }));
        let lds = json!({ "lds_config": {
            "path_config_source": { "path": watched.0.path().join("listeners.json") },
            "resource_api_version": "V3",
        } });
        fields.insert("dynamic_resources".to_owned(), lds);
        let admin = config.pointer("/admin/address/socket_address/port_value");
        let admin = u16::try_from(admin.and_then(Value::as_u64).context("no admin port")?)?;
        let arguments: Vec<_> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let ports = vec![(name.to_owned(), port)];
        let envoy = Envoy::start_file(&dynamic.to_string(), admin, ports, &arguments).await?;
        Ok((watched, envoy))
    }

    /// Publishes the listener of another configuration; the rename is what Envoy sees.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn publish(&self, version: u32, config: &Value) -> anyhow::Result<()> {
        let listener = config.pointer("/static_resources/listeners/0").and_then(Value::as_object);
        let mut resource = listener.context("no listener")?.clone();
        let kind = "type.googleapis.com/envoy.config.listener.v3.Listener";
        resource.insert("@type".to_owned(), json!(kind));
        let document = json!({ "version_info": version.to_string(), "resources": [resource] });
        let directory = self.0.path();
        std::fs::write(directory.join("new.json"), document.to_string())?;
        std::fs::rename(directory.join("new.json"), directory.join("listeners.json"))?;
        Ok(())
    }
}
