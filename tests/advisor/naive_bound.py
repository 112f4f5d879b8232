"""A naive twin of the bound for one plan: plain loops over experts and steps, written from docs/theory.md section 2."""

import math

import numpy as np


def naive_bound(constants, plan, num_samples, *, form="refined", growth="general"):
    """The terms of one plan as a dictionary of floats and lists."""
    c, big_l, mu, p = constants, constants.smoothness, constants.pl_constant, constants.task_weights
    tasks = range(len(c.names))
    recipes = [plan.recipes[name] for name in c.names]
    lam = [plan.coefficients[name] for name in c.names]
    a = [recipe.step_weights() for recipe in recipes]
    eta = [recipe.learning_rate for recipe in recipes]
    b = [recipe.batch_size for recipe in recipes]
    sigma = [math.sqrt(v) for v in c.gradient_variance]
    d, s, rho = [], [], []
    for i in tasks:
        convex = growth == "convex" and recipes[i].momentum == 0 and eta[i] * max(a[i]) <= 2 / big_l
        q1 = q2 = 0.0
        for k in range(len(a[i])):
            spread = 1.0
            for later in a[i][k + 1 :]:
                spread *= 1.0 if convex else 1 + eta[i] * big_l * later
            q1 += a[i][k] * spread
            q2 += (a[i][k] * spread) ** 2
        way = eta[i] * c.initial_gradient_norm[i] * q1 + eta[i] * sigma[i] * math.sqrt(q2 / b[i])
        if recipes[i].momentum == 0 and eta[i] * max(a[i]) * c.task_smoothness[i] <= 1:
            one, two = sum(a[i]), sum(x * x for x in a[i])
            drift = 2 * eta[i] * one * c.task_gap[i]
            drift += eta[i] ** 3 * c.task_smoothness[i] * one * two * sigma[i] ** 2 / b[i]
            way = min(way, math.sqrt(drift) + eta[i] * sigma[i] * math.sqrt(two / b[i]))
        n = num_samples[i]
        if form == "paper":
            square = 8 * sigma[i] ** 2 * eta[i] ** 2 * q2 * b[i] / n
        else:
            root = math.sqrt(2) * sigma[i] * eta[i] * (q1 / n + math.sqrt(q2 / (n * b[i])))
            square = min(root, 2 * way) ** 2
        d.append(way)
        s.append(square)
        mean = c.initial_gradient_norm[i] + c.task_smoothness[i] * way
        step = eta[i] * max(a[i]) * math.sqrt(mean**2 + sigma[i] ** 2 / b[i])
        rho.append(math.inf if recipes[i].momentum > 0 else step)
    travelled = [lam[i] * eta[i] * sum(a[i]) for i in tasks]
    total = sum(travelled)
    w = [t / total for t in travelled] if total > 0 else list(p)
    far = sum(lam[i] * d[i] for i in tasks)
    mismatch = sum((p[i] - w[i]) * (p[j] - w[j]) * c.gradient_gram[i, j] for i in tasks for j in tasks)
    root_h = math.sqrt(max(mismatch, 0)) + sum(abs(p[i] - w[i]) * c.task_smoothness[i] for i in tasks) * far
    square = 0.0
    for i in tasks:
        own = (1 + lam[i]) * d[i]
        if lam[i] > 0:
            own = min(own, abs(1 - lam[i]) * d[i] + lam[i] * rho[i])
        others = sum(lam[j] * d[j] for j in tasks if j != i)
        square += w[i] * c.task_smoothness[i] ** 2 * (others + own) ** 2
    root_d = math.sqrt(square)
    memory = (1 - math.exp(-mu * total)) / mu if mu > 0 else total
    noise = 0.0
    for i in tasks:
        done, mass = 0.0, sum(a[i])
        for x in a[i]:
            done += x
            kappa = mu * total * x / mass
            psi = sum((-kappa) ** m / math.factorial(m + 2) for m in range(40))  # (kappa - 1 + e^-kappa)/kappa^2
            left = math.exp(-mu * total * (1 - done / mass))
            noise += big_l * (lam[i] * eta[i] * x * sigma[i]) ** 2 / b[i] * psi * left
    progress = math.exp(-mu * total) * c.initial_gap
    norm = math.sqrt(p @ c.gradient_gram @ p)
    trust = c.initial_gap + norm * far + big_l / 2 * far**2
    inner = memory * (root_h + root_d) ** 2 / 2
    optimization = min(progress + inner + noise, trust)
    start = float(p @ c.initial_risk)
    remembered = start - (1 - math.exp(-mu * total)) * c.initial_gap_floor + inner + noise
    merged = min(remembered, start + norm * far + big_l / 2 * far**2)
    stability = sum(p[i] * lam[i] ** 2 * s[i] for i in tasks)
    generalisation = math.sqrt(2 * big_l * merged * stability) + big_l / 2 * stability
    return {
        "displacement": d,
        "stability": s,
        "progress": progress,
        "noise": noise,
        "trust_region": trust,
        "optimization": optimization,
        "merged_risk": merged,
        "generalisation": generalisation,
        "total": optimization + generalisation,
        "interference": inner,
        "shares": w,
        "chi_square": sum((p[i] - w[i]) ** 2 / w[i] if w[i] > 0 else (math.inf if p[i] else 0.0) for i in tasks),
    }


def random_constants(rng, num_tasks, **changes):
    """Constants with every field in use."""
    from advisor.bound import BoundConstants

    vectors = rng.standard_normal((num_tasks, 5))
    risk = rng.uniform(0.5, 2.0, num_tasks)
    weights = rng.dirichlet(np.ones(num_tasks))
    values = {
        "names": tuple(f"task{i}" for i in range(num_tasks)),
        "task_weights": weights,
        "num_samples": np.full(num_tasks, 100.0),
        "smoothness": 5.0,
        "task_smoothness": rng.uniform(0.5, 5.0, num_tasks),
        "gradient_variance": rng.uniform(0.1, 10.0, num_tasks),
        "initial_gradient_norm": np.linalg.norm(vectors, axis=1),
        "gradient_gram": vectors @ vectors.T,
        "initial_risk": risk,
        "initial_gap": 0.8 * float(weights @ risk),
        "initial_gap_floor": 0.6 * float(weights @ risk),
        "task_gap": 0.9 * risk,
        "pl_constant": 0.2,
    }
    return BoundConstants(**(values | changes))
