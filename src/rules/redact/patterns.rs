//! The table of named patterns: what each finds, where it starts, and how a match is told from a lookalike.
//!
//! A pattern starts at something that is found quickly: a literal, an `@`, some digits. It is tried only there, so text without such starts
//! costs one search ([`Search`](super::search::Search)). Every attempt is bounded or ends in a match, so hostile text is searched in linear
//! time.

use std::ops::Range;

use super::checks;
use super::shapes::Shape;

/// A kind of text to redact.
#[derive(Debug)]
pub struct Pattern {
    /// Its name in the configuration and in replacements.
    pub name: &'static str,
    /// Its description in the documentation.
    pub finds: &'static str,
    pub(super) start: Start,
    pub(super) body: Body,
    pub(super) edges: Edges,
    /// Whether every match has a digit; what has none is words with hyphens.
    pub(super) has_digit: bool,
}

/// Returns where a match may start, given the text and the place of a shape.
pub(super) type Near = fn(&[u8], usize) -> Option<usize>;

/// Returns the range of a match, given the text and the place that was found.
pub(super) type Reach = fn(&[u8], usize) -> Option<Range<usize>>;

/// Where a pattern may start.
#[derive(Debug, Clone, Copy)]
pub(super) enum Start {
    /// At one of these texts.
    Literals(&'static [&'static str]),
    /// Near such a shape.
    Near(Shape, Near),
}

/// How far a match extends.
#[derive(Debug, Clone, Copy)]
pub(super) enum Body {
    /// A regular expression from the start on. Its first group, if any, is replaced.
    Regex(&'static str),
    Code(Reach),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Edges {
    /// No letter or digit on either side.
    Word,
    /// Nor one of these before a digit.
    Number(&'static [u8]),
    /// No letter, digit, `-` or `_` before it, which would make it a piece of base64.
    Token,
    /// No letter or digit after it.
    Right,
    Free,
}

const fn found(
    name: &'static str,
    finds: &'static str,
    start: Start,
    body: Body,
    edges: Edges,
) -> Pattern {
    Pattern { name, finds, start, body, edges, has_digit: false }
}

const fn key(
    name: &'static str,
    finds: &'static str,
    literals: &'static [&'static str],
    body: &'static str,
) -> Pattern {
    found(name, finds, Start::Literals(literals), Body::Regex(body), Edges::Word)
}

/// After a `+`, as many groups as fit, up to 15 digits (ITU-T E.164); otherwise ten digits in North American groups.
const PHONE: &str = r"(\+[0-9](?:[ ./()-]{0,2}[0-9]){7,14})(?:[^0-9A-Za-z]|$)|(?:1[ .-])?(?:\([0-9]{3}\) ?[0-9]{3}|[0-9]{3}[.-][0-9]{3})[ .-][0-9]{4}";

/// All named patterns. If two start at the same place, the first one names the match.
#[rustfmt::skip]
pub static PATTERNS: &[Pattern] = &[
    key("anthropic_key", "Anthropic's keys (`sk-ant-...`)", &["sk-ant-"], "sk-ant-[A-Za-z0-9_-]{20,}"),
    key("langfuse_key", "Langfuse's secret keys (`sk-lf-...`)", &["sk-lf-"], "sk-lf-[0-9a-f-]{32,36}"),
    Pattern {
        has_digit: true,
        ..key("openai_key", "OpenAI's keys and those in its form, as OpenRouter's (`sk-...`, `sk-proj-...`)", &["sk-"],
            "sk-[A-Za-z0-9_-]{20,}")
    },
    key("groq_key", "Groq's keys (`gsk_...`)", &["gsk_"], "gsk_[A-Za-z0-9]{32,}"),
    key("xai_key", "xAI's keys (`xai-...`)", &["xai-"], "xai-[A-Za-z0-9]{40,}"),
    key("perplexity_key", "Perplexity's keys (`pplx-...`)", &["pplx-"], "pplx-[A-Za-z0-9]{32,}"),
    key("langsmith_key", "LangSmith's keys (`lsv2_...`)", &["lsv2_"], "lsv2_[a-z]{2}_[0-9a-f]{32}_[0-9a-f]{8,16}"),
    key("huggingface_token", "Hugging Face's tokens (`hf_...`)", &["hf_"], "hf_[A-Za-z0-9]{30,}"),
    key("aws_access_key", "AWS access key ids (`AKIA...`, `ASIA...`)", &["AKIA", "ASIA", "ABIA", "ACCA"],
        "A[A-Z]{3}[A-Z0-9]{16}"),
    Pattern {
        edges: Edges::Right,
        ..key("aws_secret", "AWS secret access keys, after a name like `aws_secret_access_key`",
            &["ecret_access_key", "ECRET_ACCESS_KEY", "ecretAccessKey", "ecret-access-key", "ecret access key"],
            r#"(?i:ecret[_ -]?access[_ -]?key)["'\\\s:=>,]{1,12}((?:[A-Za-z0-9+]|\\?/){40})"#)
    },
    key("google_api_key", "Google's API keys (`AIza...`)", &["AIza"], "AIza[A-Za-z0-9_-]{35}"),
    key("google_oauth_token", "Google's OAuth tokens (`ya29...`)", &["ya29."], r"ya29\.[A-Za-z0-9_-]{20,}"),
    Pattern {
        edges: Edges::Right,
        ..key("azure_storage_key", "keys in Azure Storage connection strings", &["AccountKey="],
            "AccountKey=((?:[A-Za-z0-9+]|\\\\?/){40,}={0,2})")
    },
    key("github_token", "GitHub's tokens (`ghp_...`, `github_pat_...`)",
        &["ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"],
        "(?:gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{22,})"),
    key("gitlab_token", "GitLab's tokens (`glpat-...`)", &["glpat-"], "glpat-[A-Za-z0-9_-]{20,}"),
    key("slack_token", "Slack's tokens (`xoxb-...`, `xapp-...`)",
        &["xox", "xapp-"], "x(?:ox[a-z]|app)-[A-Za-z0-9-]{10,}"),
    key("stripe_key", "Stripe's keys (`sk_live_...`, `whsec_...`)",
        &["sk_live_", "rk_live_", "sk_test_", "rk_test_", "whsec_"],
        "(?:[sr]k_(?:live|test)_|whsec_)[A-Za-z0-9]{16,}"),
    key("sendgrid_key", "SendGrid's keys (`SG....`)", &["SG."], r"SG\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{16,64}"),
    key("npm_token", "npm's tokens (`npm_...`)", &["npm_"], "npm_[A-Za-z0-9]{36}"),
    key("pypi_token", "PyPI's tokens (`pypi-...`)", &["pypi-AgEI"], "pypi-AgEI[A-Za-z0-9_-]{50,}"),
    Pattern {
        edges: Edges::Token,
        ..key("jwt", "JSON Web Tokens (`eyJ...`)", &["eyJ"],
            // A longer header is base64 of a payload, and each beginning in it would be searched to its end.
            r"eyJ[A-Za-z0-9_-]{8,508}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*")
    },
    found("private_key", "private keys in PEM, also truncated", Start::Literals(&["-----BEGIN "]), Body::Code(checks::private_key), Edges::Free),
    Pattern {
        has_digit: true,
        ..key("bearer", "what follows `Bearer` in a header", &["Bearer ", "bearer ", "BEARER "],
            r"(?i:bearer) {1,4}([A-Za-z0-9._~+=-](?:[A-Za-z0-9._~+=-]|\\?/){15,})")
    },
    found("password_in_url", "the password in `scheme://user:password@host`",
        Start::Near(Shape::At, |text, at| checks::password(text, at).and(Some(at))), Body::Code(checks::password), Edges::Free),
    found("email", "e-mail addresses",
        Start::Near(Shape::At, |text, at| checks::email(text, at).and(Some(at))), Body::Code(checks::email), Edges::Free),
    found("credit_card", "credit card numbers, by their issuers' lengths and the Luhn check digit",
        Start::Near(Shape::Digits, checks::card_start), Body::Code(checks::card), Edges::Number(b".")),
    found("iban", "bank account numbers (IBAN), by their check digits",
        Start::Near(Shape::Country, checks::iban_start), Body::Code(checks::iban), Edges::Word),
    found("us_ssn", "US social security numbers (`123-45-6789`)",
        Start::Near(Shape::Digits, |text, at| checks::ssn(text, at).and(Some(at))), Body::Code(checks::ssn), Edges::Number(b"-")),
    found("phone", "phone numbers: international with `+`, and North American",
        Start::Near(Shape::Digits, checks::phone_start), Body::Regex(PHONE), Edges::Number(checks::PHONE_JOINTS)),
    found("ipv4", "IPv4 addresses", Start::Near(Shape::Digits, checks::ipv4_start), Body::Code(checks::ipv4), Edges::Number(b".")),
    found("ipv6", "IPv6 addresses", Start::Near(Shape::Colons, checks::ipv6_start), Body::Code(checks::ipv6), Edges::Free),
];
