import CLibCurl

/// The engine thread's work. Everything here belongs to that thread.
final class EngineLoop {
  private let configuration: HTTPEngineConfiguration
  private let inbox: EngineInbox
  private let onCompletions: HTTPEngine.CompletionHandler
  private let driver: MultiDriver

  private var origins: OriginTable
  private var active: [Transfer] = []
  /// Handles ready for use, the most recent last: its options are the likeliest to fit.
  private var free: [Transfer] = []
  /// Leaders whose connection is not known to stand yet.
  private var leaders: [Transfer] = []
  /// Origins at which requests wait.
  private var crowded: [Origin] = []
  private var completions: [HTTPCompletion] = []

  /// Handles kept for reuse; a burst's surplus is given back, for each holds some tens of kilobytes.
  private static let freeLimit = 1024
  /// Wakes now and then even if nothing happens; nothing depends on it.
  private static let longestWaitMilliseconds = 10_000

  init(
    configuration: HTTPEngineConfiguration,
    inbox: EngineInbox,
    onCompletions: @escaping HTTPEngine.CompletionHandler
  ) {
    self.configuration = configuration
    self.inbox = inbox
    self.onCompletions = onCompletions
    origins = OriginTable(configuration)
    driver = MultiDriver(maxConnections: configuration.maxConnections)
  }

  func run() {
    inbox.open(bell: driver.bell)
    var now = MonotonicInstant.now()
    while true {
      let (requests, isShutDown) = inbox.take()
      for request in requests { accept(request, now: now) }
      if isShutDown { break }
      now = driver.turn(longestMilliseconds: longestWaitMilliseconds(now: now))
      followLeaders(now: now)
      collect(now: now)
      expireWaiting(now: now)
      deliver(now: now)
    }
    shutDown()
  }

  // MARK: - Starting

  private func accept(_ request: HTTPRequest, now: MonotonicInstant) {
    let pending = PendingRequest(request, arrivedAt: now)
    do throws(HTTPFailure) {
      let origin = try origins.origin(for: request)
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
      guard let transfer = free.popLast() ?? Transfer(configuration: configuration, sockets: driver.sockets) else {
        throw HTTPFailure(.other, "libcurl has no memory for another request")
      }
      do throws(HeaderLines.Problem) {
        try transfer.prepare(pending, origin: origin, isLeader: leads, now: now)
      } catch {
        retire(transfer)
        throw HTTPFailure(.invalidRequest, error.message)
      }
      let code = curl_multi_add_handle(driver.multi, transfer.easy)
      guard code == CURLM_OK else {
        retire(transfer)
        throw HTTPFailure(.other, "libcurl refuses the request: \(String(cString: curl_multi_strerror(code)))")
      }
      transfer.activeIndex = active.count
      active.append(transfer)
      if leads { leaders.append(transfer) }
      driver.keepIdleConnections(besides: active.count)
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
    while let (easy, code) = driver.nextEnded() {
      var context: UnsafeMutableRawPointer?
      curl_shim_get_pointer(easy, CURLINFO_PRIVATE, &context)
      guard let context else { continue }
      let transfer = Unmanaged<Transfer>.fromOpaque(context).takeUnretainedValue()
      curl_multi_remove_handle(driver.multi, easy)
      if code != CURLE_OK, transfer.prepareSecondTry(after: code, now: now),
        curl_multi_add_handle(driver.multi, easy) == CURLM_OK
      {
        continue
      }
      // libcurl goes by its own readings of the clock. By ours from before it acted, a request would seem to have timed out
      // before its time if the process stood still in between.
      let completion = transfer.completion(code: code, now: .now())
      var overHTTP2: Bool?
      if case .response = completion.outcome { overHTTP2 = transfer.usedHTTP2 }
      completions.append(completion)
      if transfer.stumbledOverHTTP2(code) { transfer.origin?.stopOfferingHTTP2() }
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
        tag: pending.request.tag,
        outcome: .failure(failure),
        duration: pending.arrivedAt.duration(to: now)
      )
    )
  }

  private func expireWaiting(now: MonotonicInstant) {
    guard !crowded.isEmpty else { return }
    for origin in crowded {
      for pending in origin.popExpired(now: now) {
        fail(pending, HTTPFailure(.aborted, "the deadline passed while waiting for a connection"), now: now)
      }
    }
    crowded.removeAll { !$0.hasWaiting }
  }

  /// Hands over what has ended and starts what comes back.
  private func deliver(now: MonotonicInstant) {
    guard !completions.isEmpty else { return }
    let next = onCompletions(completions)
    completions.removeAll(keepingCapacity: true)
    for request in next { accept(request, now: now) }
  }

  private func longestWaitMilliseconds(now: MonotonicInstant) -> Int {
    // Requests that failed before they started are due at once.
    guard completions.isEmpty else { return 0 }
    return crowded.reduce(Self.longestWaitMilliseconds) { milliseconds, origin in
      origin.earliestDeadline.map { min(milliseconds, now.milliseconds(until: $0)) } ?? milliseconds
    }
  }

  // MARK: - Shutting down

  static func aborted(_ request: HTTPRequest) -> HTTPCompletion {
    HTTPCompletion(tag: request.tag, outcome: .failure(Self.shutDownFailure), duration: .zero)
  }

  private static let shutDownFailure = HTTPFailure(.aborted, "the engine was shut down")

  private func shutDown() {
    let now = MonotonicInstant.now()
    for transfer in active {
      curl_multi_remove_handle(driver.multi, transfer.easy)
      completions.append(
        HTTPCompletion(
          tag: transfer.tag,
          outcome: .failure(Self.shutDownFailure),
          duration: transfer.arrivedAt.duration(to: now)
        )
      )
      transfer.release()
    }
    for origin in crowded {
      for pending in origin.popAll() { fail(pending, Self.shutDownFailure, now: now) }
    }
    active = []
    leaders = []
    crowded = []
    // The easy handles go first, as libcurl asks; the driver then closes the connections they leave behind.
    free = []
    repeat {
      var requests = inbox.take().requests
      while !completions.isEmpty || !requests.isEmpty {
        let batch = completions + requests.map(Self.aborted)
        completions = []
        requests = onCompletions(batch)
      }
    } while !inbox.closeIfEmpty()
  }
}
