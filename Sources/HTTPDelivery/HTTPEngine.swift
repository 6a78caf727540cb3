import CLibCurl

/// Carries out POST requests, many at a time, on one thread of its own.
///
/// libcurl's multi interface does the work. Results come back in batches, all that ended in one turn of the loop, and
/// the requests handed back in return start in the same turn: a busy engine hops between threads neither for a request
/// nor for its result.
package final class HTTPEngine: Sendable {
  /// Takes a batch of completions and returns requests to start at once. Called on the engine's thread, so while it
  /// runs no exchange makes progress.
  package typealias CompletionHandler = @Sendable ([HTTPCompletion]) -> [HTTPRequest]

  private let configuration: HTTPEngineConfiguration
  private let onCompletions: CompletionHandler
  private let inbox = EngineInbox()

  package init(configuration: HTTPEngineConfiguration, onCompletions: @escaping CompletionHandler) {
    self.configuration = configuration
    self.onCompletions = onCompletions
  }

  /// Hands over requests; from any thread. How many may be under way at once is the caller's business.
  ///
  /// After `run()` has returned there is no engine thread any more: then the requests complete as `.aborted` on the
  /// calling thread, before this returns.
  package func submit(_ requests: [HTTPRequest]) {
    guard !requests.isEmpty, !inbox.put(requests) else { return }
    var rest = requests
    while !rest.isEmpty { rest = onCompletions(rest.map(EngineLoop.aborted)) }
  }

  /// Works until `shutdown()` is called or the task is cancelled. May be called once.
  package func run() async {
    await withTaskCancellationHandler {
      await withCheckedContinuation { continuation in
        let (configuration, inbox, onCompletions) = (configuration, inbox, onCompletions)
        EngineThread.start {
          EngineLoop(configuration: configuration, inbox: inbox, onCompletions: onCompletions).run()
          continuation.resume()
        }
      }
    } onCancel: {
      shutdown()
    }
  }

  /// Ends the engine; from any thread, any number of times. Everything queued or in flight completes as `.aborted`, and
  /// so do requests that the completion handler returns from then on.
  package func shutdown() {
    inbox.shutDown()
  }
}
