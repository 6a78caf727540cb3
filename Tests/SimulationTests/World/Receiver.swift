import HTTPDelivery

/// An endpoint and the network on the way to it: well for a while, then slow, failing, hanging or gone, and in the end well.
final class Receiver {
  enum Mood: CaseIterable { case well, slow, failing, flapping, hanging, unreachable, busy, gone }
  unowned let world: World
  let endpoint: Int
  let timeout: Int
  private var mood = Mood.well
  private var moodEnds = 0
  /// Answers 410 in its bad moments. A dead letter is final; most do not.
  private let mayBeGone: Bool

  init(_ world: World, _ endpoint: EndpointRow) {
    self.world = world
    self.endpoint = endpoint.id
    timeout = endpoint.timeout
    mayBeGone = world.chance.oneIn(8)
  }

  private func currentMood() -> Mood {
    let (chance, scheduler) = (world.chance, world.scheduler)
    guard world.isTroubled else { return .well }
    if scheduler.now >= moodEnds {
      mood = chance.oneIn(2) ? .well : chance.pick(Mood.allCases)
      if mood == .gone, !mayBeGone { mood = .failing }
      moodEnds = scheduler.now + chance.below(2_000_000)
    }
    return mood
  }

  /// Carries an exchange out: calls `arrived` if and when it gets there, and `ended` when the sender knows how it ended.
  func exchange(
    arrived: @escaping (_ isSuccess: Bool) -> Void,
    ended: @escaping (HTTPOutcome, RetryAfter?, Int) -> Void
  ) {
    let (chance, scheduler) = (world.chance, world.scheduler)
    let way = chance.between(200, 3000)
    let isLossy = world.isTroubled && chance.permille(world.scenario.lostExchanges)
    let losesRequest = isLossy && chance.oneIn(2)
    var status = 200
    var retryAfter: RetryAfter?
    var takes = chance.between(100, 5000)
    switch currentMood() {
    case .well: break
    case .slow: takes = chance.below(2 * timeout)
    case .failing: status = 500
    case .flapping: status = chance.oneIn(2) ? 200 : 503
    case .hanging: takes = 10 * timeout
    case .busy: (status, retryAfter) = (429, .seconds(chance.below(3)))
    case .gone: status = 410
    case .unreachable:
      return scheduler.after(way) { ended(.failure(HTTPFailure(.connect, "connection refused")), nil, way) }
    }
    guard !losesRequest else {
      return scheduler.after(timeout) { [timeout] in ended(.failure(HTTPFailure(.timeout, "timed out")), nil, timeout) }
    }
    let isSuccess = (200..<300).contains(status)
    scheduler.after(way) { arrived(isSuccess) }
    if isLossy || 2 * way + takes > timeout {
      scheduler.after(timeout) { [timeout] in ended(.failure(HTTPFailure(.timeout, "timed out")), nil, timeout) }
    } else {
      let all = 2 * way + takes
      scheduler.after(all) { ended(.response(status: status), retryAfter, all) }
    }
  }
}
