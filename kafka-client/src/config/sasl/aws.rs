//! What the options of AWS's login module say: whose keys, for which role, for which region.

use super::options::Options;
use crate::config::property::{Property, PropertyError};
use crate::sasl::{AwsBase, AwsClient, AwsKeys, AwsRole, SaslIdentity};
use crate::tls::HttpsTrust;

/// The names of AWS's own login module; keys there and the region are our addition.
pub(super) fn identity(
    options: &mut Options,
    trust: HttpsTrust,
) -> Result<SaslIdentity, PropertyError> {
    refuse_what_java_alone_does(options)?;
    let role = role(options)?;
    let own = keys(options, OWN_KEYS)?;
    let keys = match (own, keys(options, ROLE_KEYS)?) {
        (Some(_), Some(_)) => return Err(excludes(OWN_KEYS.id, ROLE_KEYS.id)),
        (_, Some(_)) if role.is_none() => return Err(needs(ROLE_KEYS.id, ROLE)),
        (own, for_role) => own.or(for_role),
    };
    let base = match (options.take_text(PROFILE), keys) {
        (Some(_), Some(_)) => return Err(excludes(PROFILE, OWN_KEYS.id)),
        // AWS's library takes the profile and forgets the role.
        (Some(_), None) if role.is_some() => return Err(excludes(PROFILE, ROLE)),
        (Some(profile), None) => AwsBase::Profile(profile),
        (None, Some(keys)) => AwsBase::Keys(keys),
        (None, None) => AwsBase::Chain,
    };
    Ok(SaslIdentity::Aws(AwsClient { base, role, trust }))
}

pub(super) fn region(
    options: &mut Options,
    option: &'static str,
) -> Result<Option<String>, PropertyError> {
    let Some(region) = options.take_text(option) else { return Ok(None) };
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    // It becomes part of a host name.
    if region.is_empty() || !region.chars().all(is_part) {
        let property = Property { name: option, value: &region };
        return Err(property.invalid("a region of AWS, such as eu-west-1".to_owned()));
    }
    Ok(Some(region))
}

fn role(options: &mut Options) -> Result<Option<AwsRole>, PropertyError> {
    let session = options.take_text(ROLE_SESSION);
    let external_id = options.take_text(ROLE_EXTERNAL_ID);
    let sts_region = region(options, STS_REGION)?;
    let Some(arn) = options.take_text(ROLE) else {
        let given = [
            (ROLE_SESSION, session.is_some()),
            (ROLE_EXTERNAL_ID, external_id.is_some()),
            (STS_REGION, sts_region.is_some()),
        ];
        let alone = given.iter().find(|(_, is_given)| *is_given);
        return alone.map_or(Ok(None), |(name, _)| Err(needs(name, ROLE)));
    };
    if !arn.starts_with("arn:") {
        let property = Property { name: ROLE, value: &arn };
        return Err(property.invalid("the ARN of a role, `arn:aws:iam::…`".to_owned()));
    }
    Ok(Some(AwsRole { arn, session, external_id, sts_region }))
}

fn keys(options: &mut Options, names: KeyNames) -> Result<Option<AwsKeys>, PropertyError> {
    let session_token = options.take(names.token);
    match (options.take_text(names.id), options.take(names.secret)) {
        (Some(id), Some(secret)) => Ok(Some(AwsKeys { id, secret, session_token })),
        (Some(_), None) => Err(needs(names.id, names.secret)),
        (None, Some(_)) => Err(needs(names.secret, names.id)),
        (None, None) if session_token.is_some() => Err(needs(names.token, names.id)),
        (None, None) => Ok(None),
    }
}

fn refuse_what_java_alone_does(options: &mut Options) -> Result<(), PropertyError> {
    for (name, harmless, why) in JAVA_ALONE {
        if let Some(value) = options.take_text(name)
            && Some(&*value) != harmless
        {
            return Err(Property { name, value: &value }.unsupported(why));
        }
    }
    Ok(())
}

/// Options that are keys together.
#[derive(Clone, Copy)]
struct KeyNames {
    id: &'static str,
    secret: &'static str,
    token: &'static str,
}

fn needs(name: &'static str, other: &'static str) -> PropertyError {
    PropertyError::Needs { name, other }
}

fn excludes(name: &'static str, other: &'static str) -> PropertyError {
    PropertyError::Excludes { name, other }
}

pub(super) const REGION: &str = "awsRegion";
const PROFILE: &str = "awsProfileName";
const ROLE: &str = "awsRoleArn";
const ROLE_SESSION: &str = "awsRoleSessionName";
const ROLE_EXTERNAL_ID: &str = "awsRoleExternalId";
const STS_REGION: &str = "awsStsRegion";
const OWN_KEYS: KeyNames =
    KeyNames { id: "awsAccessKeyId", secret: "awsSecretAccessKey", token: "awsSessionToken" };
const ROLE_KEYS: KeyNames = KeyNames {
    id: "awsRoleAccessKeyId",
    secret: "awsRoleSecretAccessKey",
    token: "awsRoleSessionToken",
};
/// Options that nothing here could honour, the value that asks for nothing, and why.
const JAVA_ALONE: [(&str, Option<&str>, &str); 3] = [
    (
        "awsDebugCreds",
        Some("false"),
        "it would write into the log whose keys are used; `aws sts get-caller-identity` says that",
    ),
    ("awsMaxRetries", None, RETRIES),
    ("awsMaxBackOffTimeMs", None, RETRIES),
];
const RETRIES: &str = "leave it out, keys are asked for until there are some";
