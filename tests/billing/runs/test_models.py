from datetime import UTC, datetime, timedelta

from services.billing.runs.models import KEPT, STAGES, STALLED, Drift, KnownDrift, Run, count_by_kind

NOW = datetime(2026, 11, 21, 6, 5, tzinfo=UTC)


def test_a_run_passes_through_the_stages_of_its_kind() -> None:
    run = Run.begin("run_1", "verify_lately", at=NOW, hours=2)
    stages = []
    while run.under_way:
        stages.append(run.stage)
        assert run.expects(run.step)
        assert not run.expects(run.step - 1)
        run = run.continued("cursor", at=NOW)
        assert (run.cursor, run.check_round) == ("cursor", 0)
        run = run.stage_completed(at=NOW)
        assert run.cursor is None
    assert tuple(stages) == STAGES["verify_lately"]
    assert (run.status, run.finished_at, run.expires_at) == ("done", NOW, NOW + KEPT)
    assert run.stopped(at=NOW) == run.resumed(at=NOW) == run
    assert not run.expects(run.step)


def test_a_stopped_run_can_be_resumed_and_an_idle_one_is_stalled() -> None:
    run = Run.begin("run_1", "sweep", at=NOW, days=30).counted(events=3).counted(events=2)
    assert run.counts == {"events": 5}
    stopped = run.stopped(at=NOW)
    assert not stopped.expects(0)
    resumed = stopped.resumed(at=NOW)
    assert (resumed.status, resumed.times_resumed, resumed.expires_at) == ("running", 1, None)
    assert resumed.expects(0)
    waiting = run.waiting(at=NOW)
    assert waiting.expects(0)
    assert not waiting.stalled(NOW + STALLED)
    assert waiting.stalled(NOW + STALLED + timedelta(seconds=1))
    assert not stopped.stalled(NOW + 2 * STALLED)


def test_known_drift_is_counted_by_object_and_kind() -> None:
    drift = Drift(subject="payment", stripe_id="pi_1", our_id=None, kind="missing_here")
    first = KnownDrift.of(drift, at=NOW)
    later = first.seen(
        Drift(subject="payment", stripe_id="pi_1", our_id="p", kind="differs"), at=NOW + timedelta(hours=1)
    )
    assert (later.found_at, later.kind) == (NOW, "differs")
    other = KnownDrift.of(Drift(subject="dispute", stripe_id="dp_1", our_id=None, kind="missing_here"), at=NOW)
    assert count_by_kind([first, later, other]) == {
        ("payment", "missing_here"): 1,
        ("payment", "differs"): 1,
        ("dispute", "missing_here"): 1,
    }
