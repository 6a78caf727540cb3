import DeliveryCore
import HTTPDelivery
import Synchronization

/// Makes requests of departures. Most are made at once; what needs a body from a transform or an access token first waits in
/// here, in its slot among those in flight.
final class Preparation: Sendable {
  let transforms = TransformQueue()
  private typealias Tokens = AccessTokens<(departure: Desk.Departure, body: RequestBody?)>
  private struct State {
    var tokens = Tokens()
    var fetches: [UInt64: Tokens.Holder] = [:]
    var nextTag = Preparation.firstTag
  }
  private let state = Mutex(State())

  /// Tags of token requests; those of deliveries count up from one.
  private static let firstTag: UInt64 = 1 << 63
  static func isToken(_ completion: HTTPCompletion) -> Bool { completion.tag >= firstTag }

  /// The requests that can be sent now. The rest follows in time.
  func requests(for departures: [Desk.Departure], at now: Duration) -> [HTTPRequest] {
    if departures.allSatisfy(\.endpoint.isPlain) { return departures.map { HTTPRequest($0) } }
    let refused = transforms.put(departures.filter { $0.endpoint.transform != nil })
    // The engine was shut down before the queue: it gives these back untried.
    return refused.map { HTTPRequest($0) }
      + departures.filter { $0.endpoint.transform == nil }.flatMap { requests(for: $0, body: nil, at: now) }
  }

  /// The departure's request, or one for the token that it waits for, or nothing, if somebody asked for that already.
  func requests(for departure: Desk.Departure, body: RequestBody?, at now: Duration) -> [HTTPRequest] {
    let endpoint = departure.endpoint
    guard let client = endpoint.oauth2 else { return [HTTPRequest(departure, body: body)] }
    return state.withLock { state in
      let holder = Tokens.Holder(endpoint: endpoint.id, version: endpoint.version)
      switch state.tokens.want((departure, body), for: holder, at: now) {
      case .use(let token): return [HTTPRequest(departure, body: body, token: token)]
      case .wait: return []
      case .fetch:
        let tag = state.nextTag
        state.nextTag += 1
        state.fetches[tag] = holder
        return [client.tokenRequest(tag: tag, timeout: endpoint.timeout)]
      }
    }
  }

  /// Token endpoints have answered: the requests that waited for that, and what has failed for want of a token.
  func tokensCame(_ completions: [HTTPCompletion], at now: Duration) -> (
    requests: [HTTPRequest], failed: [HTTPCompletion]
  ) {
    state.withLock { state in
      var (requests, failed): ([HTTPRequest], [HTTPCompletion]) = ([], [])
      for completion in completions {
        guard let holder = state.fetches.removeValue(forKey: completion.tag) else { continue }
        switch TokenAnswer(completion) {
        case .token(let token, let lifetime):
          for (departure, body) in state.tokens.granted(token, to: holder, until: now - completion.duration + lifetime)
          {
            requests.append(HTTPRequest(departure, body: body, token: token))
          }
        case .refused(let failure):
          failed += state.tokens.refused(holder).map { HTTPCompletion($0.departure, failure) }
        }
      }
      return (requests, failed)
    }
  }

  /// An endpoint answered 401: its token, if it had one, is worth nothing.
  func tokenRejected(by endpoint: Int64) { state.withLock { $0.tokens.rejected(by: endpoint) } }
}

extension HTTPCompletion {
  /// The end of an exchange that never began.
  init(_ departure: Desk.Departure, _ failure: HTTPFailure) {
    self.init(tag: departure.tag, outcome: .failure(failure), duration: .zero)
  }
}
