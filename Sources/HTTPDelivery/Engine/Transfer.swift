import CLibCurl
import Glibc

/// One of libcurl's easy handles and everything the request it currently carries needs to stay alive.
///
/// Used over and over: options that never change are set once, the others only when their value differs from the last
/// request's. Touched by the engine thread alone.
final class Transfer {
  let easy: UnsafeMutableRawPointer
  let limits: ResponseLimits
  let egress: EgressPolicy
  /// The only addresses dialled are then the proxy's, which is trusted.
  let usesProxy: Bool
  let sockets: SocketTable

  /// Where it stands in the list of transfers under way.
  var activeIndex = -1
  /// True for the first request to a host that is not connected yet; see `OriginGate`.
  var isLeader = false
  /// Set by libcurl's callback when a leader has its connection.
  var hasConnected = false

  private(set) var tag: UInt64 = 0
  private(set) var origin: Origin?
  private(set) var arrivedAt = MonotonicInstant(nanoseconds: 0)
  private var deadline = MonotonicInstant(nanoseconds: 0)
  /// On a connection of its own, after the kept-alive one it was given turned out to be closed.
  private var isSecondTry = false
  var response = ResponseProgress()
  var dialling = DialProgress()

  private var body: RequestBody?
  private var headers = HeaderLines()
  private var identity: ClientIdentity?
  /// Bytes of a 2xx body that the request wants kept.
  private(set) var keptBodyBytes = 0
  private var url = ""
  private var timeoutMilliseconds = 0
  private var version = 0
  private var resolve: UnsafeMutablePointer<curl_slist>?
  private let resolveAnew: (@Sendable () -> [String])?
  /// Unowned by Swift because libcurl writes to it at any time.
  let errorText: UnsafeMutablePointer<CChar>

  init?(configuration: HTTPEngineConfiguration, sockets: SocketTable) {
    guard let easy = curl_easy_init() else { return nil }
    self.easy = easy
    self.sockets = sockets
    limits = ResponseLimits(configuration)
    egress = configuration.egress
    usesProxy = configuration.proxy != nil
    errorText = .allocate(capacity: Int(CURL_ERROR_SIZE))
    errorText.initialize(repeating: 0, count: Int(CURL_ERROR_SIZE))
    resolveAnew = configuration.resolveAnew
    setConstantOptions(configuration)
    setNames(configuration.resolve)
  }

  deinit {
    curl_easy_cleanup(easy)
    curl_slist_free_all(resolve)
    errorText.deallocate()
  }

  /// Loads a request; the handle may then be added to the multi handle.
  func prepare(_ pending: PendingRequest, origin: Origin, isLeader: Bool, now: MonotonicInstant)
    throws(HeaderLines.Problem)
  {
    let request = pending.request
    let lines = try headers.fill(request.headers)
    curl_shim_set_pointer(easy, CURLOPT_HTTPHEADER, lines)

    body = request.body
    curl_shim_set_pointer(easy, CURLOPT_POSTFIELDS, request.body.bytes.baseAddress)
    curl_shim_set_offset(easy, CURLOPT_POSTFIELDSIZE_LARGE, curl_off_t(request.body.count))

    if url != request.url {
      url = request.url
      curl_shim_set_string(easy, CURLOPT_URL, url)
    }
    if let resolveAnew { setNames(resolveAnew()) }
    setIdentity(request.clientIdentity)
    keptBodyBytes = min(max(0, request.keptBodyBytes), limits.bodyBytes)
    deadline = pending.deadline
    setTimeout(now: now)
    setSecondTry(false)
    let version = origin.offersHTTP2 ? CURL_HTTP_VERSION_2TLS : CURL_HTTP_VERSION_1_1
    if self.version != version {
      self.version = version
      curl_shim_set_long(easy, CURLOPT_HTTP_VERSION, version)
    }

    tag = request.tag
    self.origin = origin
    self.isLeader = isLeader
    hasConnected = false
    arrivedAt = pending.arrivedAt
    forgetProgress()
  }

  /// A kept-alive connection may be closed by the server at the moment it is used again, which says nothing about the
  /// receiver; or it may hold bytes that nobody asked for, upon which nothing is sent. If that is how this exchange ended, makes it ready for a connection of its own, once, within the same
  /// deadline (RFC 9112, 9.3.1; that a webhook may arrive twice its id is for). libcurl does so itself only where it has
  /// not begun to send. The handle must have been removed from the multi handle.
  func prepareSecondTry(after code: CURLcode, now: MonotonicInstant) -> Bool {
    let wasClosed = code == CURLE_RECV_ERROR || code == CURLE_SEND_ERROR || code == CURLE_GOT_NOTHING
    guard !isSecondTry, response.headerBytes == 0, usedKeptConnection, now.milliseconds(until: deadline) > 0,
      wasClosed || dialling.foundUnreadBytes
    else { return false }
    setTimeout(now: now)
    setSecondTry(true)
    forgetProgress()
    return true
  }

  private func setNames(_ names: [String]) {
    let previous = resolve
    resolve = names.reduce(nil) { curl_slist_append($0, $1) }
    curl_shim_set_pointer(easy, CURLOPT_RESOLVE, resolve)
    curl_slist_free_all(previous)
  }

  private func setIdentity(_ identity: ClientIdentity?) {
    guard self.identity != identity else { return }
    self.identity = identity
    setBlob(CURLOPT_SSLCERT_BLOB, identity?.certificatesAndKey)
    setBlob(CURLOPT_SSLKEY_BLOB, identity?.privateKey)
  }

  private func setBlob(_ option: CURLoption, _ bytes: [UInt8]?) {
    guard let bytes else {
      curl_shim_set_blob(easy, option, nil, 0)
      return
    }
    bytes.withUnsafeBytes { _ = curl_shim_set_blob(easy, option, $0.baseAddress, $0.count) }
  }

  private func setTimeout(now: MonotonicInstant) {
    let milliseconds = max(1, now.milliseconds(until: deadline))
    guard timeoutMilliseconds != milliseconds else { return }
    timeoutMilliseconds = milliseconds
    curl_shim_set_long(easy, CURLOPT_TIMEOUT_MS, milliseconds)
  }

  private func setSecondTry(_ value: Bool) {
    guard isSecondTry != value else { return }
    isSecondTry = value
    curl_shim_set_long(easy, CURLOPT_FRESH_CONNECT, value ? 1 : 0)
  }

  private func forgetProgress() {
    response = ResponseProgress()
    dialling = DialProgress()
    errorText[0] = 0
  }

  /// Lets go of the request's memory. The handle must have been removed from the multi handle.
  func release() {
    body = nil
    origin = nil
    // libcurl must not be left with pointers into memory that is no longer ours.
    curl_shim_set_pointer(easy, CURLOPT_POSTFIELDS, nil)
  }
}

/// Limits on what is taken of a response.
struct ResponseLimits {
  let bodyBytes: Int
  let headerBytes: Int
  let excerptBytes: Int
  /// Of all bytes on the wire, for what the other limits do not see. A server that flushes every byte of a body as a chunk
  /// and a TLS record of its own needs some thirty for each.
  let receivedBytes: UInt64

  init(_ configuration: HTTPEngineConfiguration) {
    bodyBytes = max(0, configuration.responseLimitBytes)
    // Below libcurl's own limit of 300 KB, which it reports as a failure to receive.
    headerBytes = max(0, min(configuration.headerLimitBytes, 256 * 1024))
    excerptBytes = max(0, min(configuration.excerptBytes, configuration.responseLimitBytes))
    receivedBytes = UInt64(min(bodyBytes, 1 << 30) * 32 + headerBytes + (1 << 20))
  }
}

/// What has been received of a response so far.
struct ResponseProgress {
  var head = ResponseHead()
  var problem: ResponseHead.Problem?
  var headerBytes = 0
  /// The blank line after the header has come. libcurl takes a connection that closes within a header for a response.
  var hasWholeHeader = false
  var bodyBytes = 0
  /// The beginning of the body: an excerpt of a failure's, or what the request wants of a success's.
  var kept: [UInt8] = []
  /// The body went past its limit and the rest is not wanted.
  var isCutOff = false
  var headersOverflowed = false
  /// How often libcurl has had something to do since the header began, and what had been received at the first look.
  var turns = 0
  var receivedBytes: UInt64?
}

/// What became of the addresses a host name resolved to, or of the connection that stood already.
struct DialProgress {
  var sockets = 0
  var firstRefusal: EgressRefusal?
  /// Sockets opened for this exchange, and the one it goes over.
  var descriptors: [Int32] = []
  var connected: Int32?
  var foundUnreadBytes = false
}
