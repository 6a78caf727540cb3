/// What a dispatcher asks the database for next: new events (cut), waiting deliveries (claim), which endpoints have any
/// (look), or nothing for a while. A pure decision: the clock is handed in, as time since some fixed moment.
///
/// The rules, in the order in which they are tried:
/// * Look once a second for endpoints with waiting deliveries.
/// * Claim for endpoints known to have deliveries due, as far as there is room for them.
/// * Cut as fast as there is room. Where the busiest endpoint has none left but makes some fast enough, wait for it rather
///   than park its events in the database; where it does not, cut and let them be parked: nobody waits for a slow one. Nor
///   for a fast one, if there is somebody to wait: an endpoint that keeps up, and whose events may stand behind in the log.
/// * When the log is exhausted, poll: every millisecond while events flow, less and less often as they fail to come. A
///   poll only asks whether any transaction has begun or ended; if none has, there is nothing to cut. When nothing else
///   is to be expected either, the server watches in our place, and answers when there is news.
package struct IntakePlan {
  package struct Limits: Sendable {
    package var eventsPerCut = 500
    package var bytesPerCut = 16 << 20
    /// Over all endpoints.
    package var deliveriesPerClaim = 500
    /// Where others keep up with their events, a claim of a backlog is no larger, and the log has its turn after each.
    package var deliveriesPerClaimBesideOthers = 100
    /// The longest that claims keep the log waiting.
    package var cutAmongClaims: Duration = .milliseconds(20)
    package var lookEvery: Duration = .seconds(1)
    /// How far behind the last claim the next one begins, once an endpoint has been claimed empty: rows written by slow
    /// transactions may turn up there.
    package var claimSlackMicroseconds: Int64 = 10_000_000
    /// How often an endpoint is claimed from the beginning all the same: rows that came in below where the last claim
    /// began would otherwise wait for as long as others keep coming.
    package var fullClaimEvery: Duration = .seconds(60)
    /// How often a rate-limited endpoint with all slots taken is looked at; no question to the database.
    package var slotPoll: Duration = .milliseconds(5)
    package var shortestPoll: Duration = .milliseconds(1)
    package var longestPoll: Duration = .milliseconds(16)
    /// How long the server may keep us waiting for news. So long, nothing else is taken in, and nobody stops.
    package var longestWatch: Duration = .milliseconds(200)
    /// How long a full but fast endpoint may hold up the cut. Up to `longestPatience` if it is known to be fast: a machine
    /// that stumbles for a moment is no reason to park its events.
    package var patience: Duration = .milliseconds(100)
    package var longestPatience: Duration = .milliseconds(300)
    /// An endpoint that had all its events delivered no longer ago than this may have more in the log.
    package var othersWithin: Duration = .seconds(60)
    /// A poll that finds nothing is believed no longer than this; then comes a cut, whatever it says.
    package var cutEvery: Duration = .seconds(1)
    package init() {}
  }

  package enum Action: Equatable {
    case look
    /// `floors`: where each endpoint's claim begins, as a time due in the database's microseconds; nil: everything.
    case claim(endpoints: [Int64], slots: [Int], floors: [Int64?])
    case cut(events: Int, direct: Int, perEndpoint: Int, busy: [Int64], slots: [Int])
    /// Ask whether anything at all has happened in the database.
    case poll
    /// Let the server ask that, as often as the first says, and answer when something has, or the second has passed.
    case watch(every: Duration, upTo: Duration)
    case wait(Duration)
    /// Wait until the endpoint has room for that many more, at most this long.
    case waitForRoom(endpoint: Int64, slots: Int, Duration)
  }

  package let limits: Limits
  /// Endpoints with waiting deliveries, and when the first is due.
  private var due: [Int64: Duration] = [:]
  /// Everything due before this has been claimed: dead index entries there need not be walked again.
  private var floors: [Int64: Int64] = [:]
  /// When each endpoint with a floor is next claimed from the beginning.
  private var fullClaimAt: [Int64: Duration] = [:]
  /// Endpoints with a rate limit, as far as claims have told, and when the next claim there is worth while. Nothing is
  /// claimed there only to be queued: it would have been counted when it was claimed, and would leave in a burst later.
  private var rateLimited: [Int64: Duration] = [:]
  private var nextLook: Duration = .zero
  private var lastCut: Duration = .zero
  private var lastPoll: Duration = .zero
  private var lastEvent: Duration = .zero
  private var exhausted = false
  private var hasNews = false
  private var claimsSinceCut = 0
  /// By how many powers of two the next cut is smaller than usual.
  private var cutShift = 0
  private var cutsSinceShift = 0
  private var progress: [Int64: Progress] = [:]
  /// The few endpoints that last had nothing left to do, and when; the latest first.
  private var idled: [(endpoint: Int64, at: Duration)] = []
  /// How many deliveries an event makes, going by the last cuts; never less than one.
  private var fanOut = 1.0
  /// Since when the log has held more than was cut; nil while it does not.
  private var behindSince: Duration?

  package init(limits: Limits = Limits()) { self.limits = limits }

  /// - Parameters:
  ///   - mayClaim: false while nothing may be claimed.
  ///   - mayWatch: false while something may come up that is not in the plan yet, such as what a record will tell.
  package mutating func next<Item>(
    _ flight: FlightControl<Item>,
    mayClaim: Bool = true,
    mayWatch: Bool = true,
    at now: Duration
  ) -> Action {
    if now >= nextLook { return .look }
    let cutting = nextCut(flight, mayWatch: mayWatch && flight.held == 0, at: now)
    let waiting = due.filter { $0.value <= now }
    let claimable = waiting.filter {
      room(for: $0.key, flight) > 0 && flight.room(for: $0.key) >= worthwhile($0.key, flight)
    }.sorted { ($0.value, $0.key) < ($1.value, $1.key) }
    guard mayClaim else { return cutting }
    guard !claimable.isEmpty, flight.free > 0 else {
      // One with a rate limit has all in flight that it takes at a time: its next claim should not wait for a poll.
      if case .wait(let pause) = cutting,
        waiting.keys.contains(where: { rateLimited[$0] != nil && flight.room(for: $0) > 0 })
      {
        return .wait(min(pause, limits.slotPoll))
      }
      return roomOrElse(cutting, for: waiting.keys.sorted(), flight)
    }
    // Claims come first, but while they go on and on the log gets its turn every so often.
    let besideOthers = othersMayWait(besides: claimable.map(\.key), at: now)
    if claimsSinceCut > 0, besideOthers || now >= lastCut + limits.cutAmongClaims {
      switch cutting {
      case .cut, .poll: return cutting
      default: break
      }
    }
    let most = besideOthers ? limits.deliveriesPerClaimBesideOthers : limits.deliveriesPerClaim
    return nextClaim(claimable.map(\.key), atMost: most, flight, at: now)
  }

  /// An endpoint that has much in memory and room for one more can wait until it has room for a few: a claim costs as much
  /// as twenty deliveries in it, and meanwhile nobody cuts.
  private func worthwhile<Item>(_ endpoint: Int64, _ flight: FlightControl<Item>) -> Int {
    max(1, flight.held(by: endpoint) / 4)
  }

  /// Instead of a mere wait, one that ends when an endpoint with something due has room for it.
  private func roomOrElse<Item>(_ action: Action, for endpoints: [Int64], _ flight: FlightControl<Item>) -> Action {
    guard case .wait(let pause) = action,
      let first = endpoints.filter({ flight.room(for: $0) < worthwhile($0, flight) }).min(by: {
        worthwhile($0, flight) - flight.room(for: $0) < worthwhile($1, flight) - flight.room(for: $1)
      })
    else { return action }
    return .waitForRoom(endpoint: first, slots: worthwhile(first, flight), pause)
  }

  /// Whether events go to several endpoints and this one holds about as much as each of them: if there is no room for it,
  /// there is none for the others either, and they gain nothing from a cut that does not wait.
  private func sharesEvenly<Item>(_ endpoint: Int64, _ flight: FlightControl<Item>) -> Bool {
    fanOut >= 2 && Double(flight.held(by: endpoint)) * fanOut <= 1.5 * Double(flight.held)
  }

  /// Whether an endpoint other than these keeps up with its events, and may have more of them in the log.
  private func othersMayWait(besides endpoints: [Int64], at now: Duration) -> Bool {
    guard let other = idled.first(where: { !endpoints.contains($0.endpoint) }) else { return false }
    return other.at + limits.othersWithin >= behindSince ?? now
  }

  private func room<Item>(for endpoint: Int64, _ flight: FlightControl<Item>) -> Int {
    let room = flight.room(for: endpoint)
    guard rateLimited[endpoint] != nil, let startable = flight.startable(for: endpoint) else { return room }
    return min(room, startable)
  }

  /// Of each endpoint what there is room for, and of all together no more than one claim may bring: the longest due first.
  private mutating func nextClaim<Item>(
    _ claimable: [Int64],
    atMost most: Int,
    _ flight: FlightControl<Item>,
    at now: Duration
  ) -> Action {
    var budget = min(flight.free, most)
    var (endpoints, slots): ([Int64], [Int]) = ([], [])
    for (index, endpoint) in claimable.enumerated() where budget > 0 {
      let share = max(1, budget / (claimable.count - index))
      endpoints.append(endpoint)
      slots.append(min(room(for: endpoint, flight), max(share, budget / 2)))
      budget -= slots.last!
      if fullClaimAt[endpoint, default: .zero] <= now {
        floors[endpoint] = nil
        fullClaimAt[endpoint] = now + limits.fullClaimEvery
      }
    }
    return .claim(endpoints: endpoints, slots: slots, floors: endpoints.map { floors[$0] })
  }

  private mutating func nextCut<Item>(_ flight: FlightControl<Item>, mayWatch: Bool, at now: Duration) -> Action {
    if exhausted && !hasNews {
      let pause = min(max((now - lastEvent) / 16, limits.shortestPoll), limits.longestPoll)
      if now < lastPoll + pause {
        let firstDue = due.values.min() ?? nextLook
        let undisturbed = min(now + limits.longestWatch, nextLook, lastCut + limits.cutEvery, firstDue) - now
        if mayWatch, pause == limits.longestPoll, undisturbed >= pause {
          return .watch(every: pause, upTo: undisturbed)
        }
        return .wait(min(lastPoll + pause, nextLook) - now)
      }
      if now < lastCut + limits.cutEvery { return .poll }
    }
    // Of a small memory a quarter is as much as can be hoped for.
    let usual = max(1, min(limits.eventsPerCut, flight.capacity / 4))
    let fullest = flight.busyEndpoints.max { (flight.held(by: $0), $0) < (flight.held(by: $1), $1) }
    let room = fullest.map { flight.room(for: $0) } ?? flight.free / 2
    if let fullest { progress[fullest, default: Progress()].watch(at: now) }
    // Out of a backlog whole cuts are worth waiting for; a new event is not made to wait for that.
    let wanted = exhausted ? usual / 2 : usual
    let isEven = fullest.map { sharesEvenly($0, flight) } ?? false
    if room < wanted, let fullest, isEven || !othersMayWait(besides: [fullest], at: now) {
      // Room grows with what ends at all endpoints, and with what ends at this one.
      let pace = progress[fullest]?.perSecond(at: now).map { isEven ? $0 * (fanOut + 1) / 2 : $0 }
      let needed = Double(usual / 2 - room)
      let isFast = pace.map { $0 * (limits.patience / .seconds(1)) >= needed } ?? true
      var patienceEnds = lastCut + limits.patience
      if room < usual / 2, pace != nil { patienceEnds = lastCut + limits.longestPatience }
      if isFast, now < patienceEnds {
        return .waitForRoom(endpoint: fullest, slots: wanted, patienceEnds - now)
      }
    }
    // What is parked costs the database twice as much, so no more than there is room for; yet a cut is worth its while.
    let fitting = Int(Double(max(flight.free, limits.eventsPerCut)) / fanOut)
    let mayPark = room < max(1, usual / 2)
    let busy = flight.busyEndpoints.sorted()
    return .cut(
      events: max(1, min(limits.eventsPerCut, fitting, mayPark ? .max : room) >> cutShift),
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
  /// has. One that gave nothing though it was said to be due is searched from the beginning next time. Where a rate limit
  /// was what ended it, `again` says in how long the next claim is worth while; that one begins where this one ended.
  package mutating func claimed(
    _ yields: [Int64: Yield],
    asked endpoints: [Int64],
    slots: [Int],
    again: [Int64: Duration] = [:],
    at now: Duration = .zero
  ) {
    claimsSinceCut += 1
    for (endpoint, slots) in zip(endpoints, slots) {
      let yield = yields[endpoint] ?? Yield()
      if let pause = again[endpoint] {
        rateLimited[endpoint] = now + pause
        if yield.count > 0 { floors[endpoint] = yield.latestDue }
        due[endpoint] = now + pause
        continue
      }
      if yield.count >= slots { rateLimited[endpoint] = nil }  // a limit would have said when to come again
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

  /// The answer to a cut. `events` is nil if there was nothing, or somebody else is cutting; `pairs` are the deliveries made
  /// of them, whether parked or not.
  package mutating func cut(events: Int?, pairs: Int = 0, more: Bool, at now: Duration) {
    lastCut = now
    lastPoll = now
    exhausted = !more
    behindSince = more ? behindSince ?? now : nil
    hasNews = false
    claimsSinceCut = 0
    guard let events else { return }
    lastEvent = now
    // Believed at once if it grows, and by halves if it shrinks: too small a cut costs less than what it parks if too large.
    let latest = max(1, Double(pairs) / Double(max(1, events)))
    fanOut = max(latest, (fanOut + latest) / 2)
    cutsSinceShift += 1
    if cutShift > 0, cutsSinceShift >= 20 {
      cutShift -= 1
      cutsSinceShift = 0
    }
  }

  /// A cut was ended because it took too long, and the next one takes half as many events. (A cut of a few events may
  /// concern tens of thousands of endpoints.)
  package mutating func cutTookTooLong() {
    cutShift = min(cutShift + 1, 16)
    cutsSinceShift = 0
  }

  /// The answer to a poll: whether any transaction has begun or ended since the log was last known to be exhausted.
  package mutating func polled(hasNews: Bool, at now: Duration) {
    lastPoll = now
    self.hasNews = hasNews
    if !hasNews { claimsSinceCut = 0 }  // that was the log's turn
  }

  /// A delivery of this endpoint will be due again after `delay`; spares waiting for the next look if that is sooner.
  package mutating func waits(endpoint: Int64, delay: Duration, at now: Duration) {
    let soonest = max(now + delay, rateLimited[endpoint] ?? .zero)
    due[endpoint] = min(due[endpoint] ?? .seconds(Int64.max / 4), soonest)
  }

  /// A delivery of this endpoint has come to an end. `isIdle`: it was the last that the endpoint held.
  package mutating func finished(endpoint: Int64, isIdle: Bool = false, at now: Duration) {
    progress[endpoint, default: Progress()].note(isIdle: isIdle, at: now)
    guard isIdle else { return }
    if let place = idled.firstIndex(where: { $0.endpoint == endpoint }) {
      idled.remove(at: place)
    } else if idled.count == 4 {
      idled.removeLast()
    }
    idled.insert((endpoint, now), at: 0)
  }

  /// Endpoints that hold nothing any more need no memory of their pace.
  package mutating func forget(except busy: some Collection<Int64>, at now: Duration) {
    if rateLimited.count > 1000 { rateLimited = [:] }  // the next claims tell
    guard progress.count > 2 * busy.count + 100 else { return }
    let keep = Set(busy)
    progress = progress.filter { keep.contains($0.key) }
  }

  /// How fast an endpoint's deliveries end while it has any, over the last tenth of a second or so. Time in which it held
  /// nothing does not count: it was not slow then, we were.
  private struct Progress {
    /// nil while the endpoint holds nothing.
    private var windowBegan: Duration?
    private var count = 0
    private var lastPerSecond: Double?

    /// From now on it counts that nothing ends.
    mutating func watch(at now: Duration) { if windowBegan == nil { windowBegan = now } }

    mutating func note(isIdle: Bool, at now: Duration) {
      let began = windowBegan ?? now
      windowBegan = began
      count += 1
      if now - began >= .milliseconds(100) {
        lastPerSecond = Double(count) / ((now - began) / .seconds(1))
        windowBegan = now
        count = 0
      }
      if isIdle {
        windowBegan = nil
        count = 0
      }
    }

    /// nil while unknown.
    func perSecond(at now: Duration) -> Double? {
      // A window that has long been open says more than the one before it: the endpoint may have come to a halt, or
      // never have ended anything at all.
      guard let windowBegan, now - windowBegan > .milliseconds(200) else { return lastPerSecond }
      return Double(count) / ((now - windowBegan) / .seconds(1))
    }
  }
}
