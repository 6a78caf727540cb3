import CLibCurl

/// The engine thread's work. Everything here belongs to that thread.
final class EngineLoop {
  private let configuration: HTTPEngineConfiguration
  private let inbox: EngineInbox
  private let onCompletions: HTTPEngine.CompletionHandler
  private let multi: UnsafeMutableRawPointer

  private var origins: OriginTable
  private var active: [Transfer] = []
  /// Handles ready for use, the most recent last: its options are the likeliest to fit.
  private var free: [Transfer] = []
  /// Leaders whose connection is not known to stand yet.
  private var leaders: [Transfer] = []
  /// Origins at which requests wait.
  private var crowded: [Origin] = []
  private var completions: [HTTPCompletion] = []

  private static let freeLimit = 4096
  /// Wakes now and then even if nothing happens; nothing depends on it.
  private static let longestPollMilliseconds = 10_000

  init(configuration: HTTPEngineConfiguration, inbox: EngineInbox, onCompletions: @escaping HTTPEngine.CompletionHandler)
  {
    CurlLibrary.start()
    self.configuration = configuration
    self.inbox = inbox
    self.onCompletions = onCompletions
    origins = OriginTable(configuration)
    guard let multi = curl_multi_init() else { fatalError("HTTPEngine: libcurl has no memory for a multi handle") }
    self.multi = multi
    curl_shim_multi_set_long(multi, CURLMOPT_PIPELINING, Int(CURLPIPE_MULTIPLEX))
    curl_shim_multi_set_long(multi, CURLMOPT_MAXCONNECTS, max(1, configuration.maxConnections))
  }

  func run() {
    inbox.open(multi: multi)
    while true {
      let (requests, isShutDown) = inbox.take()
      var now = MonotonicInstant.now()
      for request in requests { accept(request, now: now) }
      if isShutDown { break }

      var running: Int32 = 0
      curl_multi_perform(multi, &running)
      now = .now()
      followLeaders(now: now)
      collect(now: now)
      expireWaiting(now: now)
      // What starts here makes its first steps in the next turn, at once; only then is there something to wait for.
      if !deliver(now: now) { wait(now: now) }
    }
    shutDown()
  }

  // MARK: - Starting

  private func accept(_ request: HTTPRequest, now: MonotonicInstant) {
    let pending = PendingRequest(request, arrivedAt: now)
    do throws(HTTPFailure) {
      let origin = try origins.origin(for: request.url)
      // First come, first served: nobody overtakes those who wait.
      let decision = origin.hasWaiting ? .wait : origin.gate.admit(hasWaited: false)
      if decision == .wait {
        if !origin.hasWaiting { crowded.append(origin) }
        origin.append(pending)
      } else {
        start(pending, at: origin, leads: decision == .lead, now: now)
      }
    } catch {
      fail(pending, error, now: now)
    }
  }

  /// Starts a request that its origin's gate has admitted.
  private func start(_ pending: PendingRequest, at origin: Origin, leads: Bool, now: MonotonicInstant) {
    do throws(HTTPFailure) {
      guard let transfer = free.popLast() ?? Transfer(configuration: configuration) else {
        throw HTTPFailure(.other, "libcurl has no memory for another request")
      }
      do throws(HeaderLines.Problem) {
        try transfer.prepare(pending, origin: origin, isLeader: leads, now: now, http2: configuration.http2)
      } catch {
        retire(transfer)
        throw HTTPFailure(.invalidRequest, error.message)
      }
      let code = curl_multi_add_handle(multi, transfer.easy)
      guard code == CURLM_OK else {
        retire(transfer)
        throw HTTPFailure(.other, "libcurl refuses the request: \(String(cString: curl_multi_strerror(code)))")
      }
      transfer.activeIndex = active.count
      active.append(transfer)
      if leads { leaders.append(transfer) }
    } catch {
      origin.gate.finish(wasLeader: leads, overHTTP2: nil)
      fail(pending, error, now: now)
    }
  }

  private func startWaiting(at origin: Origin, now: MonotonicInstant) {
    while let pending = origin.popAdmitted() { start(pending, at: origin, leads: false, now: now) }
    if !origin.hasWaiting { crowded.removeAll { $0 === origin } }
  }

  private func followLeaders(now: MonotonicInstant) {
    guard !leaders.isEmpty else { return }
    let connected = leaders.filter(\.hasConnected)
    leaders.removeAll(where: \.hasConnected)
    for leader in connected {
      guard let origin = leader.origin else { continue }
      origin.gate.leaderConnected()
      startWaiting(at: origin, now: now)
    }
  }

  // MARK: - Ending

  /// Takes every exchange that has ended out of libcurl.
  private func collect(now: MonotonicInstant) {
    var remaining: Int32 = 0
    while let message = curl_multi_info_read(multi, &remaining) {
      guard message.pointee.msg == CURLMSG_DONE, let easy = message.pointee.easy_handle else { continue }
      // The message dies with the handle's removal.
      let code = message.pointee.data.result
      var context: UnsafeMutableRawPointer?
      curl_shim_get_pointer(easy, CURLINFO_PRIVATE, &context)
      guard let context else { continue }
      let transfer = Unmanaged<Transfer>.fromOpaque(context).takeUnretainedValue()
      let completion = transfer.completion(code: code, now: now)
      var overHTTP2: Bool?
      if case .response = completion.outcome { overHTTP2 = transfer.usedHTTP2 }
      completions.append(completion)
      curl_multi_remove_handle(multi, easy)
      end(transfer, overHTTP2: overHTTP2, now: now)
    }
  }

  private func end(_ transfer: Transfer, overHTTP2: Bool?, now: MonotonicInstant) {
    let last = active.removeLast()
    if last !== transfer {
      active[transfer.activeIndex] = last
      last.activeIndex = transfer.activeIndex
    }
    if transfer.isLeader { leaders.removeAll { $0 === transfer } }
    if let origin = transfer.origin {
      origin.gate.finish(wasLeader: transfer.isLeader, overHTTP2: overHTTP2)
      if origin.hasWaiting { startWaiting(at: origin, now: now) }
    }
    retire(transfer)
  }

  private func retire(_ transfer: Transfer) {
    transfer.release()
    if free.count < Self.freeLimit { free.append(transfer) }
  }

  private func fail(_ pending: PendingRequest, _ failure: HTTPFailure, now: MonotonicInstant) {
    completions.append(
      HTTPCompletion(
        tag: pending.request.tag, outcome: .failure(failure), duration: pending.arrivedAt.duration(to: now)))
  }

  private func expireWaiting(now: MonotonicInstant) {
    guard !crowded.isEmpty else { return }
    for origin in crowded {
      for pending in origin.popExpired(now: now) {
        fail(pending, HTTPFailure(.timeout, "the deadline passed while waiting for a connection"), now: now)
      }
    }
    crowded.removeAll { !$0.hasWaiting }
  }

  /// Hands over what has ended and starts what comes back. False if there was nothing to hand over.
  private func deliver(now: MonotonicInstant) -> Bool {
    guard !completions.isEmpty else { return false }
    let next = onCompletions(completions)
    completions.removeAll(keepingCapacity: true)
    for request in next { accept(request, now: now) }
    return true
  }

  private func wait(now: MonotonicInstant) {
    var milliseconds = Self.longestPollMilliseconds
    for origin in crowded {
      if let deadline = origin.earliestDeadline { milliseconds = min(milliseconds, now.milliseconds(until: deadline)) }
    }
    curl_multi_poll(multi, nil, 0, Int32(milliseconds), nil)
  }

  // MARK: - Shutting down

  static func aborted(_ request: HTTPRequest) -> HTTPCompletion {
    HTTPCompletion(tag: request.tag, outcome: .failure(Self.shutDownFailure), duration: .zero)
  }

  private static let shutDownFailure = HTTPFailure(.aborted, "the engine was shut down")

  private func shutDown() {
    let now = MonotonicInstant.now()
    for transfer in active {
      curl_multi_remove_handle(multi, transfer.easy)
      completions.append(
        HTTPCompletion(
          tag: transfer.tag, outcome: .failure(Self.shutDownFailure), duration: transfer.arrivedAt.duration(to: now)))
      transfer.release()
    }
    for origin in crowded {
      for pending in origin.popAll() { fail(pending, Self.shutDownFailure, now: now) }
    }
    active = []
    leaders = []
    crowded = []
    // Easy handles first; the multi handle then closes the connections they leave behind.
    free = []
    repeat {
      var requests = inbox.take().requests
      while !completions.isEmpty || !requests.isEmpty {
        let batch = completions + requests.map(Self.aborted)
        completions = []
        requests = onCompletions(batch)
      }
    } while !inbox.closeIfEmpty()
    curl_multi_cleanup(multi)
  }
}
