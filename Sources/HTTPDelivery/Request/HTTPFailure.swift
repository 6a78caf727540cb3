/// Why there is no response.
package struct HTTPFailure: Error, Sendable, Equatable, CustomStringConvertible {
  package enum Kind: String, Sendable, CaseIterable {
    /// The host name could not be resolved.
    case dns
    /// No TCP connection.
    case connect
    /// No trusted TLS session: handshake, certificate, host name.
    case tls
    /// The deadline passed.
    case timeout
    /// The peer closed or reset the connection before the response was complete.
    case reset
    /// The peer answered with something that is not HTTP.
    case malformedResponse
    /// The response's header block is larger than allowed. (A large *body* is cut off and is no failure.)
    case responseTooLarge
    /// The egress policy refuses the address.
    case egressDenied
    /// The proxy cannot be reached, refuses, or cannot reach the endpoint.
    case proxy
    /// The request itself cannot be sent: URL or header lines.
    case invalidRequest
    /// The engine was shut down.
    case aborted
    case other
  }

  package var kind: Kind
  /// Plain words, safe to show: no payload, no header values, no credentials.
  package var message: String

  package init(_ kind: Kind, _ message: String) {
    self.kind = kind
    self.message = message
  }

  package var description: String { "\(kind.rawValue): \(message)" }
}
