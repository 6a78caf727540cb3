/// Remembers which origin a URL leads to, so that a URL is validated once and not for every delivery. Every request
/// passes through here before it is sent; the policy never changes under it, so a verdict stays what it was.
struct OriginTable {
  static let urlLimit = 8192

  /// Where a request goes and as whom: what one client identity opened, another must neither use nor wait for.
  private struct Key: Hashable {
    let name: String
    let identity: ClientIdentity?
  }

  private let configuration: HTTPEngineConfiguration
  private var byURL: [Key: Origin] = [:]
  private var byName: [Key: Origin] = [:]

  init(_ configuration: HTTPEngineConfiguration) {
    self.configuration = configuration
  }

  mutating func origin(for request: HTTPRequest) throws(HTTPFailure) -> Origin {
    let urlKey = Key(name: request.url, identity: request.clientIdentity)
    if let known = byURL[urlKey] { return known }
    let valid: WebhookURL
    do {
      valid = try WebhookURL(validating: request.url, policy: configuration.egress)
    } catch {
      throw HTTPFailure(error.reason == .egressDenied ? .egressDenied : .invalidRequest, error.message)
    }
    if byURL.count >= Self.urlLimit { forget() }
    let nameKey = Key(name: valid.origin, identity: request.clientIdentity)
    let origin = byName[nameKey] ?? makeOrigin(valid)
    byName[nameKey] = origin
    byURL[urlKey] = origin
    return origin
  }

  private func makeOrigin(_ url: WebhookURL) -> Origin {
    Origin(
      isSecure: url.isSecure,
      offersHTTP2: url.isSecure && configuration.http2,
      maxConnections: configuration.maxConnectionsPerHost
    )
  }

  /// Starts over, but for origins in use: their counts must go on.
  private mutating func forget() {
    byURL.removeAll()
    byName = byName.filter { !$0.value.isIdle }
  }
}
