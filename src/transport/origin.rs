//! Which web pages may open sessions.

/// The list of `ALLOWED_ORIGINS`. A request without an Origin is not a browser's and passes: nothing here uses cookies,
/// so there is nothing that a foreign page could borrow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginPolicy {
    any: bool,
    exact: Vec<String>,
    schemes: Vec<String>,
}

impl OriginPolicy {
    /// Reads a comma-separated list of `*`, origins (`https://example.org`) and schemes (`chrome-extension://*`).
    pub fn parse(list: &str) -> Result<Self, String> {
        let mut policy = Self { any: false, exact: Vec::new(), schemes: Vec::new() };
        for item in list.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            let item = item.to_ascii_lowercase();
            if item == "*" {
                policy.any = true;
                continue;
            }
            let wrong = || {
                format!(
                    "{item:?} is not an origin such as https://example.org, nor a scheme such as chrome-extension://*, nor *"
                )
            };
            let (scheme, rest) = item.split_once("://").ok_or_else(wrong)?;
            if scheme.is_empty()
                || !scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
            {
                return Err(wrong());
            }
            if rest == "*" {
                policy.schemes.push(scheme.to_owned());
                continue;
            }
            // Browsers leave the default port out of an Origin; an operator may write it.
            let rest = match scheme {
                "https" => rest.strip_suffix(":443").unwrap_or(rest),
                "http" => rest.strip_suffix(":80").unwrap_or(rest),
                _ => rest,
            };
            let host_like = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'[' | b']');
            if rest.is_empty() || !rest.bytes().all(host_like) {
                return Err(wrong());
            }
            policy.exact.push(format!("{scheme}://{rest}"));
        }
        if !policy.any && policy.exact.is_empty() && policy.schemes.is_empty() {
            return Err("names no origin; * admits every one".to_owned());
        }
        Ok(policy)
    }

    /// Whether a session may be opened from there.
    pub fn admits(&self, origin: Option<&str>) -> bool {
        let Some(origin) = origin else { return true };
        if self.any {
            return true;
        }
        let origin = origin.to_ascii_lowercase();
        self.exact.contains(&origin)
            || origin.split_once("://").is_some_and(|(scheme, _)| self.schemes.iter().any(|allowed| allowed == scheme))
    }
}

#[cfg(test)]
mod tests {
    use super::OriginPolicy;

    #[test]
    fn an_origin_passes_only_if_it_is_on_the_list() {
        let policy = OriginPolicy::parse("https://a.example, http://localhost:3000 ,chrome-extension://*").unwrap();
        for admitted in ["https://a.example", "https://A.example", "http://localhost:3000", "chrome-extension://abc"] {
            assert!(policy.admits(Some(admitted)), "{admitted}");
        }
        for refused in
            ["http://a.example", "https://a.example:8443", "https://a.example.evil", "null", "", "chrome-extension"]
        {
            assert!(!policy.admits(Some(refused)), "{refused}");
        }
        assert!(policy.admits(None));
    }

    #[test]
    fn a_default_port_in_the_list_is_the_origin_without_it() {
        let policy = OriginPolicy::parse("https://a.example:443,http://b.example:80").unwrap();
        assert!(policy.admits(Some("https://a.example")) && policy.admits(Some("http://b.example")));
    }

    #[test]
    fn what_is_not_an_origin_is_refused_by_name() {
        for wrong in ["", " , ", "example.org", "https://", "https://a.example/path", "://a", "https://*.example.org"] {
            assert!(OriginPolicy::parse(wrong).is_err(), "{wrong:?}");
        }
        assert!(OriginPolicy::parse("example.org").unwrap_err().contains("example.org"));
    }
}
