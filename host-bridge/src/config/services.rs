//! `service` of a cluster: what a hosted Kafka needs, where the cluster's properties say nothing.

use std::collections::BTreeMap;

use super::error::{ConfigError, field};

/// Replaces `service` by its properties.
pub(super) fn expand(
    cluster: &str,
    properties: &mut BTreeMap<String, String>,
) -> Result<(), ConfigError> {
    let Some(service) = properties.remove("service") else { return Ok(()) };
    let Some((_, defaults)) = SERVICES.iter().find(|(name, _)| *name == service) else {
        let reason = format!("`{service}` is not known; there is azure-event-hubs");
        return Err(field(&format!("clusters.{cluster}.service"), &reason));
    };
    for (name, value) in *defaults {
        properties.entry((*name).to_owned()).or_insert_with(|| (*value).to_owned());
    }
    Ok(())
}

/// Event Hubs closes a connection without an answer when it is idle for 240 s or carries a request
/// over 1 MB, wants 20 s for a request, and says POLICY_VIOLATION to whom it throttles. Its user is a constant, and the password the connection
/// string.
const AZURE_EVENT_HUBS: &[(&str, &str)] = &[
    ("security.protocol", "SASL_SSL"),
    ("sasl.mechanism", "PLAIN"),
    ("sasl.username", "$ConnectionString"),
    ("connections.max.idle.ms", "180000"),
    ("metadata.max.age.ms", "180000"),
    ("max.request.size", "1000000"),
    ("request.timeout.ms", "60000"),
    ("policy.violation.retry", "true"),
];

const SERVICES: &[(&str, &[(&str, &str)])] = &[("azure-event-hubs", AZURE_EVENT_HUBS)];

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(properties: &[(&str, &str)]) -> BTreeMap<String, String> {
        properties.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }

    #[test]
    fn a_service_gives_what_the_cluster_does_not_say() {
        let mut properties = cluster(&[
            ("service", "azure-event-hubs"),
            ("bootstrap.servers", "n.servicebus.windows.net:9093"),
            ("sasl.password", "Endpoint=sb://n/;SharedAccessKey=k="),
            ("request.timeout.ms", "30000"),
        ]);
        expand("default", &mut properties).unwrap();
        assert_eq!(properties["request.timeout.ms"], "30000");
        assert_eq!(properties["connections.max.idle.ms"], "180000");
        let pairs = properties.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        assert!(kafka_client::Config::from_properties(pairs).is_ok());
        let error = expand("a", &mut cluster(&[("service", "x")])).unwrap_err().to_string();
        assert_eq!(error, "clusters.a.service: `x` is not known; there is azure-event-hubs");
    }
}
