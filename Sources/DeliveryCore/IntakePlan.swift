/// What a dispatcher asks the database for next: new events (cut), waiting deliveries (claim), which endpoints have any
/// (look), or nothing for a while. A pure decision: the clock is handed in, as time since some fixed moment.
///
/// The rules, in the order in which they are tried:
/// * Look once a second for endpoints with waiting deliveries.
/// * Claim for endpoints known to have deliveries due, as far as there is room for them.
/// * Cut as fast as there is room. Where the busiest endpoint has none left but makes some fast enough, wait for it rather
///   than park its events in the database; where it does not, cut and let them be parked: nobody waits for a slow one.
/// * When the log is exhausted, poll: every millisecond while events flow, less and less often as they fail to come.
package struct IntakePlan {
  package struct Limits: Sendable {
    package var eventsPerCut = 500
    package var bytesPerCut = 16 << 20
    package var lookEvery: Duration = .seconds(1)
    /// How far behind the last claim the next one begins, once an endpoint has been claimed empty: rows written by slow
    /// transactions may turn up there.
    package var claimSlackMicroseconds: Int64 = 10_000_000
    /// How often an endpoint is claimed from the beginning all the same: rows that came in below where the last claim
    /// began would otherwise wait for as long as others keep coming.
    package var fullClaimEvery: Duration = .seconds(60)
    package var shortestPoll: Duration = .milliseconds(1)
    package var longestPoll: Duration = .milliseconds(20)
    /// How long a full but fast endpoint may hold up the cut.
    package var patience: Duration = .milliseconds(100)
    package init() {}
  }

  package enum Action: Equatable {
    case look
    /// `floors`: where each endpoint's claim begins, as a time due in the database's microseconds; nil: everything.
    case claim(endpoints: [Int64], slots: [Int], floors: [Int64?])
    case cut(events: Int, direct: Int, perEndpoint: Int, busy: [Int64], slots: [Int])
    case wait(Duration)
    /// Wait for room, at most this long.
    case waitForRoom(Duration)
  }

  package let limits: Limits
  /// Endpoints with waiting deliveries, and when the first is due.
  private var due: [Int64: Duration] = [:]
  /// Everything due before this has been claimed: dead index entries there need not be walked again.
  private var floors: [Int64: Int64] = [:]
  /// When each endpoint with a floor is next claimed from the beginning.
  private var fullClaimAt: [Int64: Duration] = [:]
  private var nextLook: Duration = .zero
  private var lastCut: Duration = .zero
  private var lastEvent: Duration = .zero
  private var exhausted = false
  private var progress: [Int64: Progress] = [:]

  package init(limits: Limits = Limits()) { self.limits = limits }

  package mutating func next<Item>(_ flight: FlightControl<Item>, at now: Duration) -> Action {
    if now >= nextLook { return .look }
    let claimable = due.filter { $0.value <= now && flight.room(for: $0.key) > 0 }.keys.sorted()
    if !claimable.isEmpty {
      for endpoint in claimable where fullClaimAt[endpoint, default: .zero] <= now {
        floors[endpoint] = nil
        fullClaimAt[endpoint] = now + limits.fullClaimEvery
      }
      return .claim(
        endpoints: claimable,
        slots: claimable.map { flight.room(for: $0) },
        floors: claimable.map { floors[$0] }
      )
    }
    if exhausted {
      let pause = min(max((now - lastEvent) / 16, limits.shortestPoll), limits.longestPoll)
      if now < lastCut + pause { return .wait(min(lastCut + pause, nextLook) - now) }
    }
    let fullest = flight.busyEndpoints.max { flight.held(by: $0) < flight.held(by: $1) }
    let room = fullest.map { flight.room(for: $0) } ?? flight.free / 2
    let patienceEnds = lastCut + limits.patience
    if let fullest { progress[fullest, default: Progress()].watch(at: now) }
    if room < limits.eventsPerCut / 2, now < patienceEnds, let fullest,
      progress[fullest, default: Progress()].makes(limits.eventsPerCut / 2 - room, within: limits.patience, at: now)
    {
      return .waitForRoom(patienceEnds - now)
    }
    let busy = flight.busyEndpoints.sorted()
    return .cut(
      events: room < limits.eventsPerCut / 2 ? limits.eventsPerCut : min(limits.eventsPerCut, room),
      direct: flight.free,
      perEndpoint: flight.free / 2,
      busy: busy,
      slots: busy.map { flight.room(for: $0) }
    )
  }

  /// The answer to a look: each endpoint with deliveries waiting, and how long until the first is due.
  package mutating func looked(_ waiting: [(endpoint: Int64, dueIn: Duration)], at now: Duration) {
    due = Dictionary(waiting.map { ($0.endpoint, now + $0.dueIn) }, uniquingKeysWith: min)
    nextLook = now + limits.lookEvery
  }

  /// What came of one endpoint's claim: how many, and the latest time due among them.
  package struct Yield: Equatable {
    package var count = 0
    package var latestDue: Int64 = .min
    package init() {}
  }

  /// The answer to a claim. An endpoint that gave fewer than asked for has no more due; the next look will tell when it
  /// has. One that gave nothing though it was said to be due is searched from the beginning next time.
  package mutating func claimed(_ yields: [Int64: Yield], asked endpoints: [Int64], slots: [Int]) {
    for (endpoint, slots) in zip(endpoints, slots) {
      let yield = yields[endpoint] ?? Yield()
      if yield.count == 0 {
        floors[endpoint] = nil
      } else {
        floors[endpoint] = yield.count < slots ? below(yield.latestDue) : yield.latestDue
      }
      if yield.count < slots { due[endpoint] = nil }
    }
  }

  /// The database's `-infinity` and its neighbours have nothing below them.
  private func below(_ due: Int64) -> Int64 {
    let (floor, overflow) = due.subtractingReportingOverflow(limits.claimSlackMicroseconds)
    return overflow ? .min : floor
  }

  /// The answer to a cut. `events` is nil if there was nothing, or somebody else is cutting.
  package mutating func cut(events: Int?, more: Bool, at now: Duration) {
    lastCut = now
    exhausted = !more
    if events != nil { lastEvent = now }
  }

  /// A delivery of this endpoint will be due again after `delay`; spares waiting for the next look if that is sooner.
  package mutating func waits(endpoint: Int64, delay: Duration, at now: Duration) {
    due[endpoint] = min(due[endpoint] ?? .seconds(Int64.max / 4), now + delay)
  }

  /// A delivery of this endpoint has come to an end.
  package mutating func finished(endpoint: Int64, at now: Duration) {
    progress[endpoint, default: Progress()].note(at: now)
  }

  /// Endpoints that hold nothing any more need no memory of their pace.
  package mutating func forget(except busy: some Collection<Int64>, at now: Duration) {
    guard progress.count > 2 * busy.count + 100 else { return }
    let keep = Set(busy)
    progress = progress.filter { keep.contains($0.key) }
  }

  /// How fast an endpoint's deliveries end, over the last tenth of a second or so. Unknown (hopeful) until that has passed.
  private struct Progress {
    var windowBegan: Duration?
    var count = 0
    var perSecond: Double?

    /// From now on it counts that nothing ends.
    mutating func watch(at now: Duration) { if windowBegan == nil { windowBegan = now } }

    mutating func note(at now: Duration) {
      guard let began = windowBegan else {
        windowBegan = now
        count = 1
        return
      }
      count += 1
      if now - began >= .milliseconds(100) {
        perSecond = Double(count) / ((now - began) / .seconds(1))
        windowBegan = now
        count = 0
      }
    }

    func makes(_ needed: Int, within patience: Duration, at now: Duration) -> Bool {
      guard let windowBegan else { return true }
      // A window that has long been open says more than the one before it: the endpoint may have come to a halt, or
      // never have ended anything at all.
      let open = now - windowBegan
      let isLong = open > .milliseconds(200)
      guard let pace = isLong ? Double(count) / (open / .seconds(1)) : perSecond else { return true }
      return pace * (patience / .seconds(1)) >= Double(needed)
    }
  }
}
