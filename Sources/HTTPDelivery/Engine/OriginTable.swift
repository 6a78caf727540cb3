/// Remembers which origin a URL leads to, so that a URL is validated once and not for every delivery.
struct OriginTable {
  static let urlLimit = 8192

  private let configuration: HTTPEngineConfiguration
  private var byURL: [String: Origin] = [:]
  private var byName: [String: Origin] = [:]

  init(_ configuration: HTTPEngineConfiguration) {
    self.configuration = configuration
  }

  mutating func origin(for url: String) throws(HTTPFailure) -> Origin {
    if let known = byURL[url] { return known }
    let valid: WebhookURL
    do {
      valid = try WebhookURL(validating: url, policy: configuration.egress)
    } catch {
      throw HTTPFailure(error.reason == .egressDenied ? .egressDenied : .invalidRequest, error.message)
    }
    if byURL.count >= Self.urlLimit { forget() }
    let origin = byName[valid.origin] ?? makeOrigin(valid)
    byName[valid.origin] = origin
    byURL[url] = origin
    return origin
  }

  private func makeOrigin(_ url: WebhookURL) -> Origin {
    Origin(offersHTTP2: url.isSecure && configuration.http2, maxConnections: configuration.maxConnectionsPerHost)
  }

  /// Starts over, but for origins in use: their counts must go on.
  private mutating func forget() {
    byURL.removeAll()
    byName = byName.filter { !$0.value.isIdle }
  }
}
