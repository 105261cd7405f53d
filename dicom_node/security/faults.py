"""What an error of TLS means, in words: what was seen, and what would be right. Pure; knows nothing of sockets."""

from __future__ import annotations

import ssl

from cryptography import x509

from dicom_node.security.certificates import names_of

_NO_SHARED_VERSION = {
    *("UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION", "NO_PROTOCOLS_AVAILABLE", "VERSION_TOO_LOW"),
    "WRONG_SSL_VERSION",
}
_NO_TLS = {
    *("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "HTTPS_PROXY_REQUEST", "PACKET_LENGTH_TOO_LONG"),
    *("RECORD_LAYER_FAILURE", "UNEXPECTED_MESSAGE", "INVALID_ALERT"),
}
_NOT_ACCEPTED = {
    "TLSV1_ALERT_UNKNOWN_CA": "it does not know the authority that signed it",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "it says that it has ended",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": "it says that it is revoked",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "it says 'certificate unknown'",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it says 'bad certificate'",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "it says 'unsupported certificate'; check its extended key usage",
    "TLSV1_ALERT_DECRYPT_ERROR": "it says 'decrypt error'",
    "TLSV1_ALERT_ACCESS_DENIED": "it says 'access denied'",
}
_BEGINS_LATER, _ENDED, _OTHER_NAME, _OTHER_ADDRESS = 9, 10, 62, 64
_UNKNOWN_AUTHORITY = {18, 19, 20, 21}


def explain_server(error: OSError | ValueError, server_name: str, shown: bytes | None) -> str:
    """Return why there is no TLS with a server.

    Parameters
    ----------
    server_name
        Whom its certificate must be for.
    shown
        The certificate that it shows, unverified (DER), if it could be had.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        certificate = None if shown is None else x509.load_der_x509_certificate(shown)
        return _explain_certificate(error, certificate, server_name)
    reason = getattr(error, "reason", None) or ""
    if reason in {"TLSV13_ALERT_CERTIFICATE_REQUIRED", "TLSV1_ALERT_CERTIFICATE_REQUIRED"}:
        return "it asks for a client certificate; set tls.certificate and tls.private_key"
    if reason in _NOT_ACCEPTED:
        return f"it does not accept this node's certificate, tls.certificate: {_NOT_ACCEPTED[reason]}"
    if reason == "SSLV3_ALERT_HANDSHAKE_FAILURE":
        return "no shared cipher suite, or it asks for a client certificate: see tls.certificate"
    return _explain_either(error, reason)


def explain_client(error: OSError | ValueError) -> str:
    """Return why there is no TLS with a client."""
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in _UNKNOWN_AUTHORITY:
            return "its certificate is signed by an authority that is not in receive.tls.ca_certificates"
        if error.verify_code == _ENDED:
            return "its certificate has ended; it must be renewed"
        return f"its certificate is not accepted: {error.verify_message}"
    reason = getattr(error, "reason", None) or ""
    if reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return "it showed no certificate; receive.tls.client_certificates asks for one"
    if reason in _NOT_ACCEPTED:
        return f"it does not accept this node's certificate, receive.tls.certificate: {_NOT_ACCEPTED[reason]}"
    return _explain_either(error, reason)


def _explain_either(error: OSError | ValueError, reason: str) -> str:
    if reason in _NO_SHARED_VERSION:
        return 'no shared TLS version; this node speaks 1.2 and 1.3, or 1.3 alone with minimum_version = "1.3"'
    if reason == "NO_SHARED_CIPHER":
        return "no shared cipher suite; this node takes ECDHE with AES-GCM, as RFC 9325 recommends"
    if reason in _NO_TLS:
        return "it does not speak TLS on this port"
    if isinstance(error, TimeoutError):
        return "the TLS handshake was not finished in time"
    if reason:
        return f"TLS failed: {reason}"
    return "it ended the connection within the TLS handshake"


def _explain_certificate(
    error: ssl.SSLCertVerificationError, certificate: x509.Certificate | None, server_name: str
) -> str:
    code = error.verify_code
    if code == _ENDED:
        when = "" if certificate is None else f" on {certificate.not_valid_after_utc:%Y-%m-%d}"
        return f"its certificate, or its authority's, ended{when}; it must be renewed"
    if code == _BEGINS_LATER:
        when = "" if certificate is None else f" on {certificate.not_valid_before_utc:%Y-%m-%d}"
        return f"its certificate begins only{when}; check both clocks"
    if code in {_OTHER_NAME, _OTHER_ADDRESS}:
        names = ", ".join(sorted(names_of(certificate))) if certificate else "another name"
        return (
            f"its certificate is for {names}, not for {server_name}; set tls.server_name if that is who it is"
        )
    if code in _UNKNOWN_AUTHORITY:
        by = "" if certificate is None else f" ({certificate.issuer.rfc4514_string()})"
        return f"its certificate is signed by an authority{by} that is not in tls.ca_certificates"
    return f"its certificate is not accepted: {error.verify_message}"
