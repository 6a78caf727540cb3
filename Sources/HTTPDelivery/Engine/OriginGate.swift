/// Decides which requests to one origin (scheme, host and port) may start now. A pure value.
///
/// libcurl could hold requests back itself (`CURLOPT_PIPEWAIT`, `CURLMOPT_MAX_HOST_CONNECTIONS`), but it keeps all of
/// them, for all hosts, in one queue whose head may block the others, and whose members miss their deadlines.
///
/// Two rules:
/// * At most `limit` requests are open at once, until the host turns out to share connections (HTTP/2).
/// * To a host that may speak HTTP/2 and has nothing open, one request goes first, the *leader*; the others follow when
///   it has a connection, and share it. Otherwise a burst would open a TLS connection for each. A leader that fails to
///   connect lets everybody through: those who have waited never lead, so nobody waits for one connect after another.
struct OriginGate {
  enum Decision {
    case start, lead, wait
  }

  private var mayMultiplex: Bool
  private let limit: Int
  private(set) var open = 0
  private var isLed = false
  private var isMultiplexed = false

  init(mayMultiplex: Bool, limit: Int) {
    self.mayMultiplex = mayMultiplex
    self.limit = max(1, limit)
  }

  /// A request wants to start.
  mutating func admit(hasWaited: Bool) -> Decision {
    if isLed || (open >= limit && !isMultiplexed) { return .wait }
    open += 1
    guard mayMultiplex, open == 1, !hasWaited else { return .start }
    isLed = true
    return .lead
  }

  /// The leader has a connection.
  mutating func leaderConnected() {
    isLed = false
  }

  /// The host gets HTTP/1.1 from now on.
  mutating func stopMultiplexing() {
    mayMultiplex = false
    isMultiplexed = false
    isLed = false
  }

  /// An open request has ended.
  /// - Parameter overHTTP2: nil if it ended without a response.
  mutating func finish(wasLeader: Bool, overHTTP2: Bool?) {
    open -= 1
    if wasLeader { isLed = false }
    if let overHTTP2 { isMultiplexed = overHTTP2 && mayMultiplex }
  }
}
