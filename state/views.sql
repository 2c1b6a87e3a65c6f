CREATE VIEW results AS          -- the newest finished attempt of each node on each device
    SELECT a.* FROM attempts a JOIN (
        SELECT max(id) AS id FROM attempts
        WHERE outcome IN ('done', 'diverged') AND id NOT IN (SELECT attempt FROM removals)
        GROUP BY key, CASE kind WHEN 'profile' THEN device END
    ) newest ON newest.id = a.id;
CREATE VIEW standing AS         -- how each node stands: its newest finished attempt, else its newest
    SELECT a.* FROM attempts a JOIN (
        SELECT max(((outcome IN ('done', 'diverged')) << 48) | id) & 281474976710655 AS id FROM attempts
        WHERE id NOT IN (SELECT attempt FROM removals)
        GROUP BY key, CASE kind WHEN 'profile' THEN device END
    ) newest ON newest.id = a.id;
CREATE VIEW runs AS             -- a row for each training run, and for each row of the untuned model
    SELECT s.key, s.study, CAST(substr(s.address, 1, length(s.address) - 6) AS TEXT) AS run,
        CAST(substr(s.address, 1, instr(replace(s.address, ':train', '/seed='), '/seed=') - 1) AS TEXT)
            AS configuration,
        CAST(json_extract(n.settings, '$.seed') AS INTEGER) AS seed,
        CAST(json_extract(n.settings, '$.adapter.method') AS TEXT) AS method,
        CAST(json_extract(n.settings, '$.adapter.r') AS INTEGER) AS r,
        CAST(json_extract(n.settings, '$.adapter.lora_alpha') AS REAL) AS lora_alpha,
        CAST(json_extract(n.settings, '$.training.learning_rate') AS REAL) AS learning_rate,
        s.outcome, s.message, s.started, s.seconds, s.device,
        CAST(json_extract(FIGURES, '$.steps') AS INTEGER) AS steps,
        CAST(json_extract(FIGURES, '$.final_loss') AS REAL) AS final_loss,
        CAST(json_extract(FIGURES, '$.trainable_parameters') AS INTEGER) AS trainable_parameters,
        CAST((SELECT digest FROM outputs o WHERE o.attempt = s.id AND o.name = 'adapter_model.safetensors') AS TEXT)
            AS adapter,
        n.settings, s.figures, s.id AS attempt
    FROM standing s JOIN nodes n ON n.key = s.key WHERE s.kind = 'train'
    UNION ALL
    SELECT CAST(min(s.key) AS TEXT), s.study,
        CAST(substr(s.address, 1, instr(s.address, ':predict/') - 1) AS TEXT) AS run,
        CAST(substr(s.address, 1, instr(replace(s.address, ':predict/', '/seed='), '/seed=') - 1) AS TEXT),
        CAST(NULL AS INTEGER), CAST('none' AS TEXT), CAST(NULL AS INTEGER), CAST(NULL AS REAL), CAST(NULL AS REAL),
        s.outcome, s.message, CAST(min(s.started) AS TEXT), CAST(sum(s.seconds) AS REAL), s.device,
        CAST(NULL AS INTEGER), CAST(NULL AS REAL), CAST(NULL AS INTEGER), CAST(NULL AS TEXT), n.settings,
        CAST('{}' AS TEXT), CAST(min(s.id) AS INTEGER)
    FROM standing s JOIN nodes n ON n.key = s.key
    WHERE s.kind = 'predict' AND json_extract(n.inputs, '$.adapter') IS NULL
    GROUP BY s.study, run;
CREATE VIEW metrics AS          -- a row for each figure of each score
    WITH scored AS (
        SELECT s.*, FIGURES AS found, substr(s.address, 1, instr(s.address, ':score/') - 1) AS run,
            substr(s.address, instr(s.address, ':score/') + 7) AS place   -- the split, then the name of a metric file
        FROM standing s WHERE s.kind = 'score' AND s.outcome = 'done'
    )
    SELECT s.study, CAST(s.run AS TEXT) AS run,
        CAST(substr(s.run, 1, instr(s.run || '/seed=', '/seed=') - 1) AS TEXT) AS configuration,
        CAST(substr(s.run, nullif(instr(s.run, '/seed='), 0) + 6) AS INTEGER) AS seed,
        CAST(substr(s.place, 1, instr(s.place || '/', '/') - 1) AS TEXT) AS split,
        CAST(CASE f.key WHEN 'figure' THEN substr(s.place, instr(s.place, '/') + 1) ELSE f.key END AS TEXT) AS metric,
        CAST(f.value AS REAL) AS value, CAST(json_extract(s.found, '$.examples') AS INTEGER) AS examples, s.started,
        CAST((SELECT json_extract(p.inputs, '$.adapter') FROM json_each(n.inputs) i JOIN nodes p ON p.key = i.value
         LIMIT 1) AS TEXT) AS train, s.key
    FROM scored s JOIN nodes n ON n.key = s.key, json_each(s.found) f
    WHERE f.type IN ('integer', 'real') AND f.key <> 'examples';
CREATE VIEW curves AS           -- the loss of each training run, step by step
    SELECT r.study, r.run, r.configuration, r.seed, s.step, s.epoch, s.loss, s.learning_rate, s.grad_norm, r.key
    FROM runs r JOIN steps s ON s.attempt = r.attempt;
