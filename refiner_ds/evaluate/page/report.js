for (const scene of document.querySelectorAll(".case")) {
  const box = scene.querySelector(".compare");
  const slider = box.querySelector("input");
  slider.addEventListener("input", () => box.style.setProperty("--x", `${slider.value}%`));
  const buttons = scene.querySelectorAll("button");
  const pictures = { repaired: box.querySelector(".after").src, gt: scene.querySelector(".gt").src };
  for (const button of buttons) {
    button.addEventListener("click", () => {
      box.querySelector(".after").src = pictures[button.dataset.view];
      box.querySelector(".right").textContent = button.textContent;
      for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
    });
  }
}
