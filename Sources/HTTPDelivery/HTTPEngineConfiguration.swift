/// The engine's limits and policies.
package struct HTTPEngineConfiguration: Sendable {
  package var egress: EgressPolicy
  /// Makes all connections, if set; see there for what becomes of the egress policy. Nothing but this sets one: not the
  /// environment's `http_proxy`.
  package var proxy: HTTPProxy?
  /// Idle connections kept open, over all hosts; beyond it the one idle the longest is closed.
  package var maxConnections: Int
  /// Connections to one scheme, host and port, for each client identity. Further requests to it wait inside the engine, on their own deadline.
  /// A host that speaks HTTP/2 shares connections and is not held back by this.
  package var maxConnectionsPerHost: Int
  /// For name lookup, TCP and TLS together; a request's own timeout applies as well.
  package var connectTimeout: Duration
  /// Bytes of a response body read before it is cut off.
  package var responseLimitBytes: Int
  /// Bytes of header lines taken over one whole exchange: interim responses, the response, trailers.
  package var headerLimitBytes: Int
  /// Bytes of the response body kept when the status is not 2xx.
  package var excerptBytes: Int
  package var userAgent: String
  /// Certificate authorities (PEM) to trust instead of the system's.
  package var caFile: String?
  /// Offer HTTP/2 over TLS.
  package var http2: Bool

  /// Names with fixed addresses, `host:port:address[,address]…`: lets tests have names that resolve as they need.
  var resolve: [String] = []
  /// The same, asked before every request: lets tests have names that change their mind.
  var resolveAnew: (@Sendable () -> [String])?

  package init(
    egress: EgressPolicy = EgressPolicy(),
    proxy: HTTPProxy? = nil,
    maxConnections: Int = 1024,
    maxConnectionsPerHost: Int = 1024,
    connectTimeout: Duration = .seconds(10),
    responseLimitBytes: Int = 64 * 1024,
    headerLimitBytes: Int = 64 * 1024,
    excerptBytes: Int = 1024,
    userAgent: String = "Martlet",
    caFile: String? = nil,
    http2: Bool = true
  ) {
    self.egress = egress
    self.proxy = proxy
    self.maxConnections = maxConnections
    self.maxConnectionsPerHost = maxConnectionsPerHost
    self.connectTimeout = connectTimeout
    self.responseLimitBytes = responseLimitBytes
    self.headerLimitBytes = headerLimitBytes
    self.excerptBytes = excerptBytes
    self.userAgent = userAgent
    self.caFile = caFile
    self.http2 = http2
  }
}
