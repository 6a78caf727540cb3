import Testing

@testable import DeliveryCore

@Suite struct IntakePlanTests {
  typealias Flight = FlightControl<Int>
  let start = Duration.seconds(1000)

  func looked(_ waiting: [(endpoint: Int64, dueIn: Duration)] = []) -> IntakePlan {
    var plan = IntakePlan()
    plan.looked(waiting, at: start)
    return plan
  }

  func flight(_ held: [Int64: Int] = [:], capacity: Int = 1000) -> Flight {
    var flight = Flight(capacity: capacity, maxInFlight: capacity)
    for (endpoint, count) in held { for item in 0..<count { flight.enqueue(item, endpoint: endpoint, limit: 1) } }
    return flight
  }

  private func yields(_ endpoint: Int64, _ count: Int, latest: Int64) -> [Int64: IntakePlan.Yield] {
    var yield = IntakePlan.Yield()
    (yield.count, yield.latestDue) = (count, latest)
    return [endpoint: yield]
  }

  @Test func looksFirstAndThenOnceASecond() {
    var plan = IntakePlan()
    #expect(plan.next(flight(), at: start) == .look)
    plan.looked([], at: start)
    #expect(plan.next(flight(), at: start) != .look)
    #expect(plan.next(flight(), at: start + .milliseconds(999)) != .look)
    #expect(plan.next(flight(), at: start + .seconds(1)) == .look)
  }

  @Test func claimsWhatIsDueWhereThereIsRoom() {
    var plan = looked([(3, .zero), (1, .milliseconds(-5)), (2, .milliseconds(10)), (4, .zero)])
    let full = flight([4: 600])
    #expect(plan.next(full, at: start) == .claim(endpoints: [1, 3], slots: [200, 200], floors: [nil, nil]))
    plan.claimed([:], asked: [1, 3], slots: [200, 200])
    if case .claim = plan.next(full, at: start) { Issue.record("claimed again what is known to be empty") }
    let later = start + .milliseconds(10)
    plan.cut(events: 1, more: true, at: start)
    #expect(plan.next(full, at: later) == .claim(endpoints: [2], slots: [200], floors: [nil]))
  }

  @Test func waitsIsSoonerThanTheNextLook() {
    var plan = looked()
    plan.waits(endpoint: 5, delay: .milliseconds(50), at: start)
    plan.waits(endpoint: 5, delay: .milliseconds(80), at: start)
    if case .claim = plan.next(flight(), at: start + .milliseconds(49)) { Issue.record("too early") }
    let due = start + .milliseconds(50)
    #expect(plan.next(flight(), at: due) == .claim(endpoints: [5], slots: [500], floors: [nil]))
  }

  @Test func oneClaimTakesNoMoreThanThereIsRoomForInAll() {
    var plan = looked((Int64(1)...300).map { ($0, .zero) })
    guard case .claim(let endpoints, let slots, _) = plan.next(flight(), at: start) else {
      Issue.record("no claim")
      return
    }
    #expect(slots.reduce(0, +) <= 500)
    #expect(endpoints.count == slots.count && slots.allSatisfy { $0 > 0 })
  }

  @Test func aBacklogThatIsClaimedForEverDoesNotKeepTheLogWaiting() {
    var plan = looked([(1, .zero)])
    var cuts = 0
    var now = start
    for _ in 0..<100 {
      switch plan.next(flight(), at: now) {
      case .claim(_, let slots, _): plan.claimed(yields(1, slots[0], latest: 77_000_000), asked: [1], slots: slots)
      case .cut:
        cuts += 1
        plan.cut(events: 1, more: true, at: now)
      case .look: plan.looked([(1, .zero)], at: now)
      default: break
      }
      now += .milliseconds(5)
    }
    #expect(cuts >= 15)
  }

  @Test func aCutThatTookTooLongIsMadeSmallerUntilItFits() {
    var plan = looked()
    func events() -> Int? {
      if case .cut(let events, _, _, _, _) = plan.next(flight(), at: start) { events } else { nil }
    }
    #expect(events() == 500)
    for _ in 0..<3 { plan.cutTookTooLong() }
    #expect(events() == 62)
    for _ in 0..<30 { plan.cutTookTooLong() }
    #expect(events() == 1)
    for _ in 0..<1000 { plan.cut(events: 1, more: true, at: start) }
    #expect(events() == 500)
  }

  @Test func floorsFollowTheLastClaim() {
    var plan = looked([(1, .zero)])
    let first = IntakePlan.Action.claim(endpoints: [1], slots: [500], floors: [nil])
    #expect(plan.next(flight(), at: start) == first)
    plan.claimed(yields(1, 500, latest: 77_000_000), asked: [1], slots: [500])
    plan.cut(events: 1, more: true, at: start)
    #expect(plan.next(flight(), at: start) == .claim(endpoints: [1], slots: [500], floors: [77_000_000]))
    // Fewer than asked for: done until the next look, and then from a little further back.
    plan.claimed(yields(1, 499, latest: 99_000_000), asked: [1], slots: [500])
    plan.cut(events: 1, more: true, at: start)
    plan.looked([(1, .zero)], at: start)
    #expect(plan.next(flight(), at: start) == .claim(endpoints: [1], slots: [500], floors: [89_000_000]))
    // Nothing though something was said to be due: everything is searched.
    plan.claimed([:], asked: [1], slots: [500])
    plan.cut(events: 1, more: true, at: start)
    plan.looked([(1, .zero)], at: start)
    #expect(plan.next(flight(), at: start) == first)
  }

  @Test func rowsBelowTheFloorAreFoundThoughOthersKeepComing() {
    var plan = looked([(1, .zero)])
    var now = start
    var full = 0
    for _ in 0..<1300 {
      guard case .claim(_, let slots, let floors) = plan.next(flight(), at: now) else {
        Issue.record("no claim")
        return
      }
      if floors == [nil] { full += 1 }
      plan.claimed(yields(1, 10, latest: 77_000_000), asked: [1], slots: slots)
      plan.cut(events: 1, more: true, at: now)
      now += .milliseconds(100)
      plan.looked([(1, .zero)], at: now)
    }
    // 130 seconds: at the beginning, and about once a minute.
    #expect(full == 3)
  }

  @Test(arguments: [Int64.min, .min + 5, .max]) func infiniteDueTimesNeverTrap(due: Int64) {
    var plan = looked([(1, .zero)])
    plan.claimed(yields(1, 3, latest: due), asked: [1], slots: [10])
    plan.looked([(1, .zero)], at: start)
    guard case .claim(_, _, let floors) = plan.next(flight(), at: start) else { return }
    #expect(floors.count == 1)
  }

  @Test func cutsAtOnceWhileThereIsMore() {
    var plan = looked()
    plan.cut(events: 500, more: true, at: start)
    #expect(
      plan.next(flight(), at: start) == .cut(events: 500, direct: 1000, perEndpoint: 500, busy: [], slots: [])
    )
    #expect(
      plan.next(flight([1: 200, 2: 100]), at: start)
        == .cut(events: 250, direct: 700, perEndpoint: 350, busy: [1, 2], slots: [250, 300])
    )
  }

  /// What does not fit is parked, which costs twice as much.
  @Test func takesNoMoreEventsThanTheirDeliveriesHaveRoom() {
    func events(_ plan: IntakePlan, _ flight: Flight = flight(), at now: Duration = start) -> Int? {
      var plan = plan
      guard case .cut(let events, _, _, _, _) = plan.next(flight, at: now) else { return nil }
      return events
    }
    var plan = looked()
    plan.cut(events: 50, pairs: 500, more: true, at: start)
    #expect(events(plan) == 100, "a thousand have room, each event makes ten")
    #expect(events(plan, flight([1: 100])) == 90)
    // Where slow endpoints have taken the room the log goes on, a cut's worth of deliveries at a time.
    let later = start + .milliseconds(400)
    #expect(events(plan, flight([1: 450]), at: later) == 55)
    #expect(events(plan, flight([1: 450, 2: 450]), at: later) == 50)
    // Where all ten hold the same, none of them has room: we wait. Nobody waits for one that holds more than the others.
    plan.finished(endpoint: 20, isIdle: true, at: start)
    #expect(events(plan, flight(Dictionary(uniqueKeysWithValues: (1...10).map { ($0, 60) }))) == nil)
    #expect(events(plan, flight([1: 450])) == 55)
    plan.cut(events: 1, pairs: 20_000, more: true, at: start)
    #expect(events(plan) == 1, "never less")
    for _ in 0..<20 { plan.cut(events: 100, pairs: 100, more: true, at: start) }
    #expect(events(plan) == 500, "it is forgotten")
  }

  @Test func waitsForAFastEndpointButNotLong() {
    var plan = looked()
    for i in 0..<150 { plan.finished(endpoint: 1, at: start + .milliseconds(i)) }
    let now = start + .milliseconds(150)
    plan.cut(events: 500, more: true, at: now)
    // 1000/s make 100 in time, not 125.
    #expect(
      plan.next(flight([1: 700]), at: now)
        == .cut(
          events: 500,
          direct: 300,
          perEndpoint: 150,
          busy: [1],
          slots: [0]
        )
    )
    let fast = flight([1: 490], capacity: 1100)
    #expect(plan.next(fast, at: now) == .waitForRoom(endpoint: 1, slots: 275, .milliseconds(300)))
    let late = now + .milliseconds(300)
    plan.looked([], at: late)
    if case .waitForRoom = plan.next(fast, at: late) { Issue.record("too patient") }
  }

  /// However fast it is, an endpoint with more events than it takes would else hold up, cut after cut, all who keep up.
  @Test func nobodyWhoKeepsUpWaitsForAFastEndpoint() {
    let crowded = flight([1: 490], capacity: 1100)
    var plan = looked()
    var now = start
    var waits = 0
    for round in 0..<200 {
      for i in 0..<100 { plan.finished(endpoint: 1, at: now + .microseconds(100 * i)) }
      now += .milliseconds(10)
      // A second endpoint has an event now and then, at first.
      if round < 100, round.isMultiple(of: 20) { plan.finished(endpoint: 2, isIdle: true, at: now) }
      plan.looked([], at: now)
      plan.cut(events: 500, more: true, at: now)
      if case .waitForRoom = plan.next(crowded, at: now) { waits += 1 }
    }
    #expect(waits == 0, "its events may stand behind those that are being cut")

    // The log was read to its end, and for a minute there was nobody else.
    plan.cut(events: nil, more: false, at: now)
    plan.finished(endpoint: 1, isIdle: true, at: now)
    now += .seconds(61)
    for i in 0..<150 { plan.finished(endpoint: 1, at: now + .milliseconds(i)) }
    now += .milliseconds(150)
    plan.looked([], at: now)
    plan.cut(events: 500, more: true, at: now)
    guard case .waitForRoom = plan.next(crowded, at: now) else {
      Issue.record("does not wait though there is nobody else")
      return
    }
  }

  /// A claim of 500 takes as long as several cuts, and whoever keeps up would wait behind each.
  @Test func besideThoseWhoKeepUpABacklogIsClaimedInTurnsWithTheLog() {
    var plan = looked([(1, .zero)])
    plan.finished(endpoint: 2, isIdle: true, at: start)
    var claims: [Int] = []
    var turns = 0
    var now = start
    plan.cut(events: 1, more: false, at: now)
    for _ in 0..<14 {
      now += .milliseconds(1)
      switch plan.next(flight(), at: now) {
      case .claim(_, let slots, _):
        claims.append(slots[0])
        plan.claimed(yields(1, slots[0], latest: 77_000_000), asked: [1], slots: slots)
      case .poll:
        turns += 1
        plan.polled(hasNews: false, at: now)
      case let other: Issue.record("\(other)")
      }
    }
    #expect(claims.allSatisfy { $0 == 100 })
    #expect(turns == 7 && claims.count == 7)

    now += .seconds(61)
    plan.looked([(1, .zero)], at: now)
    plan.cut(events: nil, more: false, at: now)
    #expect(plan.next(flight(), at: now) == .claim(endpoints: [1], slots: [500], floors: [nil]), "nobody else is left")
  }

  @Test func aFullEndpointIsNotClaimedForOneByOne() {
    var plan = looked([(1, .zero), (2, .zero)])
    plan.cut(events: 1, more: false, at: start)
    var memory = flight([1: 500])
    var claims = 0
    for _ in 0..<200 {
      _ = memory.start()
      memory.finish(endpoint: 1)
      let action = plan.next(memory, at: start)
      guard case .claim(let endpoints, let slots, _) = action else {
        // Nothing else is to be done, so it waits for just that room.
        guard case .waitForRoom(1, let slots, _) = action else {
          Issue.record("\(action)")
          return
        }
        #expect(slots > memory.room(for: 1))
        continue
      }
      for (endpoint, slots) in zip(endpoints, slots) where endpoint == 1 {
        claims += 1
        for item in 0..<slots { memory.enqueue(item, endpoint: 1, limit: 1) }
      }
      // The second gives what it has once; the first has no end.
      plan.claimed(yields(1, slots[0], latest: 77_000_000), asked: [1, 2], slots: slots + [1])
    }
    #expect(claims <= 4)
    #expect(memory.held(by: 1) >= 300, "and never runs dry")
  }

  /// A memory too small for half a usual cut is no reason to wait for what can never be, nor to park what it could hold.
  @Test func smallMemoryIsCutForWhatItHolds() {
    var plan = looked()
    plan.cut(events: 100, more: true, at: start)
    guard case .cut(let events, _, _, _, _) = plan.next(flight(capacity: 200), at: start) else {
      Issue.record("no cut")
      return
    }
    #expect(events == 100)
    guard case .cut(50, _, _, _, [50]) = plan.next(flight([1: 50], capacity: 200), at: start) else {
      Issue.record("no cut of 50")
      return
    }
    guard case .waitForRoom(1, 50, _) = plan.next(flight([1: 60], capacity: 200), at: start) else {
      Issue.record("did not wait for room for 50")
      return
    }
  }

  /// An endpoint that had nothing to do for a while was not slow: we were.
  @Test func idleTimeIsNotSlowness() {
    var plan = looked()
    for i in 0..<300 { plan.finished(endpoint: 1, isIdle: i == 299, at: start + .microseconds(500 * i)) }
    let now = start + .milliseconds(900)
    plan.cut(events: 500, more: true, at: now)
    let fast = flight([1: 490], capacity: 1100)
    guard case .waitForRoom = plan.next(fast, at: now) else {
      Issue.record("took it for slow")
      return
    }
  }

  /// Nobody waits for a slow endpoint; one that has never finished anything is slow after a moment too.
  @Test(arguments: [0, 1, 2]) func hangingEndpointHoldsNobodyUp(finished: Int) {
    var plan = looked()
    let hanging = flight([1: 500])
    for _ in 0..<finished { plan.finished(endpoint: 1, at: start) }
    var waits = 0
    var now = start
    for _ in 0..<100 {
      plan.cut(events: 500, more: true, at: now)
      if case .waitForRoom = plan.next(hanging, at: now) { waits += 1 }
      now += .milliseconds(50)
      plan.looked([], at: now)
    }
    #expect(waits <= 6)
  }

  /// A rate limit is what ended the claim: the next one comes when it is worth while, and begins where this one ended, so
  /// that the dead index entries behind it are not walked again and again.
  @Test func rateLimitedEndpointIsClaimedWhenTheDatabaseSaysSo() {
    var plan = looked([(1, .zero)])
    _ = plan.next(flight(), at: start)
    plan.claimed(
      yields(1, 5, latest: 77_000_000),
      asked: [1],
      slots: [500],
      again: [1: .milliseconds(50)],
      at: start
    )
    plan.cut(events: 5, more: true, at: start)
    // A cut that parks more for it is no reason to come sooner.
    plan.waits(endpoint: 1, delay: .zero, at: start)
    if case .claim = plan.next(flight(), at: start + .milliseconds(49)) { Issue.record("too early") }
    let claim = IntakePlan.Action.claim(endpoints: [1], slots: [500], floors: [77_000_000])
    #expect(plan.next(flight(), at: start + .milliseconds(50)) == claim)
    // Nothing to be had at all, and still no search from the beginning.
    plan.claimed([:], asked: [1], slots: [500], again: [1: .milliseconds(20)], at: start + .milliseconds(50))
    plan.cut(events: 5, more: true, at: start + .milliseconds(50))
    if case .claim = plan.next(flight(), at: start + .milliseconds(69)) { Issue.record("too early") }
    #expect(plan.next(flight(), at: start + .milliseconds(70)) == claim)
  }

  /// What is counted leaves at once: nothing of it is claimed to wait in memory, and leave in a burst later.
  @Test func rateLimitedEndpointIsNotClaimedToBeQueued() {
    var plan = looked([(1, .zero)])
    _ = plan.next(flight(), at: start)
    plan.claimed(yields(1, 3, latest: 7), asked: [1], slots: [500], again: [1: .zero], at: start)
    var busy = Flight(capacity: 1000, maxInFlight: 1000)
    for item in 0..<3 { busy.enqueue(item, endpoint: 1, limit: 4) }
    plan.cut(events: 1, more: true, at: start)
    #expect(plan.next(busy, at: start) == .claim(endpoints: [1], slots: [1], floors: [7]))
    busy.enqueue(3, endpoint: 1, limit: 4)
    if case .claim = plan.next(busy, at: start) { Issue.record("claimed what could not start") }
    // When a slot may be free again is soon known, however long it is until the next poll.
    var sleepy = plan
    sleepy.cut(events: nil, more: false, at: start + .milliseconds(900))
    #expect(sleepy.next(busy, at: start + .milliseconds(900)) == .wait(.milliseconds(5)))
    // The limit is gone: a claim that was given all it asked for says so.
    plan.claimed(yields(1, 500, latest: 8), asked: [1], slots: [500], at: start)
    plan.cut(events: 1, more: true, at: start)
    guard case .claim(_, let slots, _) = plan.next(busy, at: start) else {
      Issue.record("no claim")
      return
    }
    #expect(slots[0] > 100)
  }

  @Test func actionsStayWithinBounds() {
    forSeeds { random, seed in
      var plan = IntakePlan()
      var flight = Flight(capacity: .random(in: 1...2000, using: &random), maxInFlight: 100)
      var now = Duration.seconds(Int.random(in: 0...10_000, using: &random))
      for step in 0..<300 {
        let endpoint = Int64.random(in: 0..<5, using: &random)
        switch plan.next(flight, at: now) {
        case .look:
          plan.looked([(endpoint, .milliseconds(Int.random(in: -10...2000, using: &random)))], at: now)
        case .claim(let endpoints, let slots, let floors):
          #expect(!endpoints.isEmpty && endpoints.count == slots.count && slots.count == floors.count, seed)
          for (endpoint, slots) in zip(endpoints, slots) {
            #expect(slots > 0 && slots <= flight.room(for: endpoint), seed)
          }
          let count = Int.random(in: 0...slots[0], using: &random)
          for item in 0..<count { flight.enqueue(item, endpoint: endpoints[0], limit: 3) }
          plan.claimed(yields(endpoints[0], count, latest: Int64(step)), asked: endpoints, slots: slots)
        case .cut(let events, let direct, let perEndpoint, let busy, let slots):
          #expect((1...plan.limits.eventsPerCut).contains(events), seed)
          #expect(direct == flight.free && perEndpoint <= direct && busy.count == slots.count, seed)
          for (endpoint, slots) in zip(busy, slots) { #expect(slots == flight.room(for: endpoint), seed) }
          let found = Bool.random(using: &random) ? min(perEndpoint, flight.room(for: endpoint)) : 0
          for item in 0..<found { flight.enqueue(item, endpoint: endpoint, limit: 3) }
          plan.cut(events: found > 0 ? found : nil, more: .random(using: &random), at: now)
        case .poll:
          plan.polled(hasNews: .random(using: &random), at: now)
        case .watch(let pause, let longest):
          #expect(flight.held == 0 && pause <= longest && longest <= plan.limits.longestWatch, seed)
          now += Bool.random(using: &random) ? pause : longest
          plan.polled(hasNews: .random(using: &random), at: now)
        case .wait(let pause), .waitForRoom(_, _, let pause):
          #expect(pause > .zero && pause <= plan.limits.longestPatience, seed)
          now += pause
        }
        #expect(flight.held <= flight.capacity, seed)
        _ = flight.start()
        if flight.inFlight > 0, let busy = flight.busyEndpoints.randomElement(using: &random),
          flight.held(by: busy) > 0, Bool.random(using: &random), flight.isFlying(busy)
        {
          flight.finish(endpoint: busy)
          plan.finished(endpoint: busy, isIdle: flight.held(by: busy) == 0, at: now)
          plan.forget(except: flight.busyEndpoints, at: now)
        }
      }
    }
  }
}

extension FlightControl {
  /// Everything that may start has: what is held and can fly does.
  fileprivate func isFlying(_ endpoint: Int64) -> Bool {
    var copy = self
    return copy.withdraw(endpoint: endpoint).count < held(by: endpoint)
  }
}
